// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCaps are what serving takes, from workloads of any user: to look at their memory and executables, to open files of
// theirs under /proc, and to kill them. CAP_SYS_PTRACE also keeps off whoever does not have it.
const keptCaps = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_KILL

// lowerCaps gives up all other capabilities, on all threads.
func lowerCaps() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	sets[0].Permitted &= keptCaps
	sets[0].Effective, sets[0].Inheritable = sets[0].Permitted, 0
	sets[1] = unix.CapUserData{}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&sets)), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}
