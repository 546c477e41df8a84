// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

// StorageDrivers are the kinds of storage that there are here; the real agent knows block devices and more (AG/storage).
var StorageDrivers = []string{"ephemeral", "local"}

// mountStorages puts storages in place, each mount point once: containers share them. They stay until the guest ends; the
// real agent counts their users.
func (s *Sandbox) mountStorages(storages []*grpc.Storage) error {
	s.making.Lock()
	defer s.making.Unlock()
	for _, st := range storages {
		if s.storages[st.MountPoint] {
			continue
		}
		if err := mountStorage(st); err != nil {
			return fmt.Errorf("storage %s at %s: %w", st.Driver, st.MountPoint, err)
		}
		s.storages[st.MountPoint] = true
	}
	return nil
}

func mountStorage(s *grpc.Storage) error {
	if !slices.Contains(StorageDrivers, s.Driver) {
		return fmt.Errorf("Failed to find the storage handler %s", s.Driver)
	}
	if err := os.MkdirAll(s.MountPoint, 0o777); err != nil {
		return err
	}
	mode, group, rest := os.FileMode(0o777), -1, []string(nil)
	for _, o := range s.Options {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case name == "fsgid":
			n, err := strconv.Atoi(value)
			if err != nil {
				return fmt.Errorf("option %s: %w", o, err)
			}
			group = n
		case name == "mode" && s.Driver == "local":
			n, err := strconv.ParseUint(value, 8, 12)
			if err != nil {
				return fmt.Errorf("option %s: %w", o, err)
			}
			mode = os.FileMode(n)
		default:
			rest = append(rest, o)
		}
	}
	if s.Driver == "ephemeral" {
		flags, data := mountOptions(rest)
		if err := unix.Mount(s.Source, s.MountPoint, s.Fstype, flags, data); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
	}
	if s.Driver == "local" || group >= 0 {
		if group >= 0 {
			mode |= os.ModeSetgid
		}
		if err := os.Chown(s.MountPoint, -1, group); err != nil {
			return err
		}
		return os.Chmod(s.MountPoint, mode)
	}
	return nil
}

// mountOptions tells the flags of mount(2) from what is the file system's own.
func mountOptions(options []string) (flags uintptr, data string) {
	known := map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "rw": 0, "defaults": 0,
	}
	var own []string
	for _, o := range options {
		if f, ok := known[o]; ok {
			flags |= f
		} else {
			own = append(own, o)
		}
	}
	return flags, strings.Join(own, ",")
}
