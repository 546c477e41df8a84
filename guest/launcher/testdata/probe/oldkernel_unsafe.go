// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oldKernel runs a program under a filter that fails seccomp(2) with EINVAL if its flags have
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, as kernels before 5.19 do.
func oldKernel(argv []string) {
	runtime.LockOSThread()
	insns := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 3, K: unix.SYS_SECCOMP},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 24}, // args[1]: the flags
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		panic(errno)
	}
	panic(syscall.Exec(argv[0], argv, os.Environ()))
}
