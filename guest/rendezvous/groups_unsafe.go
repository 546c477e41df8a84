// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups returns how many supplementary groups the peer of a socket had when it connected (SO_PEERGROUPS, Linux 4.13). It
// offers no room for them: the kernel then says how much it takes.
func peerGroups(fd uintptr) (int, error) {
	var size uint32
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, 0, uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 && errno != unix.ERANGE {
		return 0, errno
	}
	return int(size / 4), nil
}
