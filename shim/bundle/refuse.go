// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/internal/kata"
)

// RefuseAnnotations refuses a specification, of a container or of a pause container, whose annotations kata.CheckAnnotations refuses.
func RefuseAnnotations(allowed []string) Edit {
	return func(s *Spec) error {
		a, err := s.Annotations()
		if err != nil {
			return err
		}
		return kata.CheckAnnotations(a, allowed)
	}
}

// RefuseGuestFiles refuses bind mounts that Kata does not share with the VM, but leaves to the agent with the path that they
// have on the node, where it is a path of the guest's (createMounts in src/runtime/virtcontainers/container.go;
// volume/share_fs_volume.rs of runtime-rs):
//
//   - Those of /proc and /sys and what is under them. They would show the container the cgroups and the kernel settings of
//     the whole guest. Read-only is no way out: it does not hold for mounts below, /sys/fs/cgroup being one. And those with
//     such a name anywhere in their path, which is what runtime-rs looks for (is_system_mount): in the guest a pod can make a
//     symbolic link of that path to what it likes.
//   - Those, of whatever source, to /dev and to what the node has there that is no regular file, but for /dev/shm: a volume of
//     "/" would be the guest's whole file system, with the root directories of all its containers. Huge pages have a volume
//     of their own in the guest.
//   - Sources with "..", which the delegates resolve at different times.
func RefuseGuestFiles() Edit {
	return refuseBinds(func(m specs.Mount) error {
		source := path.Clean(m.Source)
		switch {
		case strings.Contains(source+"/", "/proc/") || strings.Contains(source+"/", "/sys/"):
			return fmt.Errorf("%s: in a VM it would be that of the whole guest: remove the volume from the pod", source)
		case strings.Contains(m.Source+"/", "/../"):
			return fmt.Errorf("%s: in a VM it could be another path than on the node: write it without \"..\"", m.Source)
		case overDevice(m):
			return fmt.Errorf("%s: the node has it too, and in a VM the guest's own %s would be mounted there: "+
				"mount the volume elsewhere in the pod", m.Destination, source)
		}
		return nil
	})
}

// RefuseOwnFiles refuses bind mounts of what Metsuke keeps on the node, given by absolute paths: of one of them, of what is under
// it, and of a directory that it is in. Symbolic links are followed, as delegates do.
func RefuseOwnFiles(own []string) Edit {
	var resolved []string
	for _, p := range own {
		resolved = append(resolved, resolveLinks(p))
	}
	return refuseBinds(func(m specs.Mount) error {
		source := resolveLinks(m.Source)
		for _, p := range resolved {
			if hasPrefixPath(source, p) || hasPrefixPath(p, source) {
				return fmt.Errorf("%s: the container would have %s, on which its supervision rests: remove the volume from the pod", m.Source, p)
			}
		}
		return nil
	})
}

// resolveLinks returns p as far as it is there without symbolic links, and clean.
func resolveLinks(p string) string {
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	if dir := filepath.Dir(p); dir != p {
		return filepath.Join(resolveLinks(dir), filepath.Base(p))
	}
	return filepath.Clean(p)
}

// refuseBinds is an edit that fails where check does for one of the bind mounts.
func refuseBinds(check func(specs.Mount) error) Edit {
	return func(s *Spec) error {
		var mounts []specs.Mount
		if _, err := s.root.get("mounts", &mounts); err != nil {
			return err
		}
		for i, m := range mounts {
			if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
				continue
			}
			if err := check(m); err != nil {
				return fmt.Errorf("mounts[%d]: %w", i, err)
			}
		}
		return nil
	}
}

// overDevice says that a bind's destination is one that Kata takes for a device of the node's (isHostDevice, is_host_device).
func overDevice(m specs.Mount) bool {
	at := path.Clean("/" + m.Destination)
	if !hasPrefixPath(at, "/dev") || at == "/dev/shm" {
		return false
	}
	var fs unix.Statfs_t
	if unix.Statfs(m.Source, &fs) == nil && fs.Type == unix.HUGETLBFS_MAGIC {
		return false
	}
	node, err := os.Stat(at)
	return at == "/dev" || err == nil && !node.Mode().IsRegular()
}

// RefuseStartHooks refuses startContainer hooks. They are programs of the container's own file system, and run in it just
// before the launcher, with its capabilities and without a filter (runtime-spec, config.md, "StartContainer Hooks").
// Other hooks are the node's programs: those of Kata's guest never get them (src/runtime/virtcontainers/kata_agent.go).
func RefuseStartHooks() Edit {
	return func(s *Spec) error {
		hooks, err := s.root.child("hooks")
		if hooks == nil || err != nil {
			return err
		}
		var start []json.RawMessage
		if _, err := hooks.get("startContainer", &start); err != nil || len(start) == 0 {
			return err
		}
		return fmt.Errorf("hooks.startContainer: a program of the image would run before the workload's filter is in force: " +
			"use a createRuntime or createContainer hook")
	}
}
