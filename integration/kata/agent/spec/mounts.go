// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What may be bound below /proc (RJ/mount.rs check_proc_mount).
var allowedInProc = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
	"/proc/net/dev",
}

// Mounts applies the rules of the jail that runc does not have (RJ/mount.rs init_rootfs, check_proc_mount, mount_from), and
// writes the type "bind" where only the options say so:
//   - a destination is absolute and has no ".." in it, not even in a name;
//   - below /proc a bind may go to a few files only;
//   - a mount point that is missing is made, through earlier mounts; in a tmpfs that is mounted read-only it cannot be. runc
//     mounts such a tmpfs writable and makes it read-only at the end.
//
// Two things that runc does alike need nothing here: a mount of type "cgroup" works at any destination, and bind options are
// applied by remounting.
func Mounts(mounts []specs.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if !strings.HasPrefix(m.Destination, "/") || strings.Contains(m.Destination, "..") {
			return fmt.Errorf("the mount destination %s is invalid", m.Destination)
		}
		if (m.Type == "" || m.Type == "none") && (slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")) {
			m.Type = "bind"
		}
		if m.Type == "bind" && strings.HasPrefix(m.Destination, "/proc/") && !slices.Contains(allowedInProc, m.Destination) {
			return fmt.Errorf("%s cannot be mounted because it is inside /proc", m.Destination)
		}
		below := Covering(mounts, i)
		if below < 0 || mounts[below].Type != "tmpfs" || !readOnly(mounts[below]) || path.Clean(mounts[below].Destination) == "/dev" {
			continue
		}
		if m.Type == "bind" {
			return fmt.Errorf("create %s: %w", m.Destination, unix.EROFS)
		}
		return fmt.Errorf("stat %s: %w", m.Destination, unix.ENOENT) // that it could not be made is ignored there, then it is missing
	}
	return nil
}

// Covering is the index of the earlier mount in which the mount point of mounts[i] lies, or -1 for the root file system.
func Covering(mounts []specs.Mount, i int) int {
	found := -1
	for j, m := range mounts[:i] {
		inside := strings.HasPrefix(path.Clean(mounts[i].Destination), strings.TrimSuffix(path.Clean(m.Destination), "/")+"/")
		if inside && (found < 0 || len(path.Clean(m.Destination)) >= len(path.Clean(mounts[found].Destination))) {
			found = j
		}
	}
	return found
}

func readOnly(m specs.Mount) bool {
	ro := false
	for _, o := range m.Options {
		switch o {
		case "ro":
			ro = true
		case "rw":
			ro = false
		}
	}
	return ro
}
