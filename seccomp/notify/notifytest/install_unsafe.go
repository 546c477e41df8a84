// SPDX-License-Identifier: Apache-2.0

package notifytest

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const waitKillable = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19)

// install puts the calling thread under a filter and returns its listener.
func install(filter []byte) (int, unix.Errno) {
	program := struct {
		length uint16
		filter *byte
	}{uint16(len(filter) / 8), &filter[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKillable, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	return int(fd), errno
}
