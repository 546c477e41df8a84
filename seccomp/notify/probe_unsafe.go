// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const waitKillable = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV of <linux/seccomp.h>

// allowEverything puts the calling thread under a filter that allows every call, and returns what the kernel does: with
// SECCOMP_FILTER_FLAG_NEW_LISTENER, the listener.
func allowEverything(flags uintptr) (int, unix.Errno) {
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	program := unix.SockFprog{Len: 1, Filter: &allow}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	return int(fd), errno
}
