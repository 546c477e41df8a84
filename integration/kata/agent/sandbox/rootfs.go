// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/kata/agent/spec"
)

// mountRoot makes the root file system of a container at <bundle>/rootfs and points s to it (AG/rpc.rs setup_bundle).
//
// The path that the shim names lies on the tmpfs that it copies files into, because it believes that nothing is shared. What
// the host has for this container behind the shim's back, if anything, is bound there first; this is the stand's alone.
func (s *Sandbox) mountRoot(id, bundle string, oci *specs.Spec) error {
	named := oci.Root.Path
	if s.paths.Host != "" {
		if host := filepath.Join(s.paths.Host, id, "rootfs"); isDir(host) {
			if err := bind(host, named); err != nil {
				return err
			}
		}
	}
	root := filepath.Join(bundle, "rootfs")
	if err := bind(named, root); err != nil {
		return err
	}
	oci.Root.Path = root
	return nil
}

// unmountRoot takes back what mountRoot did, as far as it was done.
func (s *Sandbox) unmountRoot(id, bundle string) error {
	var errs []error
	for _, dir := range []string{filepath.Join(bundle, "rootfs"), filepath.Join(s.paths.Shared, id, "rootfs")} {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// truncateTargets empties the files over which files will be bound, as the real agent does with those that exist already
// (RJ/mount.rs mount_from): those of the root file system and those inside what was bound before. A link that leads out of
// it is left alone, which the real agent follows inside the root.
func truncateTargets(oci *specs.Spec) error {
	for i, m := range oci.Mounts {
		if info, err := os.Stat(m.Source); m.Type != "bind" || err != nil || info.IsDir() {
			continue
		}
		base, at := oci.Root.Path, "/"
		if below := spec.Covering(oci.Mounts, i); below >= 0 {
			if oci.Mounts[below].Type != "bind" {
				continue // a fresh file system has no file yet
			}
			base, at = oci.Mounts[below].Source, oci.Mounts[below].Destination
		}
		name, err := filepath.Rel(at, filepath.Clean(m.Destination))
		if err != nil || strings.HasPrefix(name, "..") {
			continue
		}
		if err := truncate(base, name); err != nil {
			return fmt.Errorf("open/create dest error. %s: %w", m.Destination, err)
		}
	}
	return nil
}

func truncate(base, name string) error {
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only a descriptor
	info, err := root.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil // nothing there, or it leads out
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeBundle makes the directory of a container; one that exists is an error.
func (s *Sandbox) makeBundle(id string) (string, error) {
	bundle := filepath.Join(s.paths.Base, id)
	if err := os.MkdirAll(s.paths.Base, 0o755); err != nil {
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	if err := os.Mkdir(bundle, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("container %s already exists", id)
		}
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	return bundle, nil
}
