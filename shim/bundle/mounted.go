// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CheckMounted verifies that [Guest] in a container is the helper, the file source of the host, and that
// [Private] is a plain directory of the container's own root file system: no symbolic link and nothing mounted
// there. root is the container's root as the host sees it, /proc/<pid>/root.
//
// It must pass between the delegate's Create and Start, while nothing of the image runs, and again before each
// exec: a workload with CAP_SYS_ADMIN in its container could have mounted something over the helper since.
// The file that is executed is looked up again by the delegate, so for such workloads this narrows the race
// and does not end it. openat2(2), Linux 5.6.
func CheckMounted(root, source string) error {
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("check the helper in %s: %w", root, err)
	}
	defer unix.Close(top)
	dir, err := openat2(top, Private[1:], unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV)
	if err != nil {
		return fmt.Errorf("check the helper: %s must be a plain directory of the container's own root file system, with no link in the image and no volume there: %w", Private, err)
	}
	defer unix.Close(dir)
	guest, err := openat2(dir, Guest[len(Private)+1:], 0, 0)
	if err != nil {
		return fmt.Errorf("check the helper: %s is not in the container: %w", Guest, err)
	}
	defer unix.Close(guest)
	var have, want unix.Stat_t
	if err := unix.Fstat(guest, &have); err != nil {
		return fmt.Errorf("check the helper: %s: %w", Guest, err)
	}
	if err := unix.Stat(source, &want); err != nil {
		return fmt.Errorf("check the helper: %w", err)
	}
	if have.Dev != want.Dev || have.Ino != want.Ino {
		return fmt.Errorf("check the helper: %s in the container is another file than %s of the host: something covers it", Guest, source)
	}
	return nil
}

func openat2(dir int, name string, flags, resolve uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | resolve,
	})
}
