// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// getFilter reads the newest filter of a stopped thread; without a buffer only its length.
func getFilter(pid int, buf []unix.SockFilter) (int, error) {
	var p unsafe.Pointer
	if len(buf) > 0 {
		p = unsafe.Pointer(&buf[0])
	}
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(p), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// install loads a filter on the calling thread.
func install(code []unix.SockFilter, flags uint32) (int, error) {
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}
