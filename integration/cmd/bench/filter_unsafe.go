// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadedFilter reads the newest seccomp filter of a process, as an array of struct sock_filter, by ptrace(2)'s
// PTRACE_SECCOMP_GET_FILTER, and turns its returns of USER_NOTIF into ERRNO, so that it can be loaded without a listener.
func loadedFilter(pid int) ([]byte, error) {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return nil, fmt.Errorf("wait for the stop: %w", err)
	}
	const maxInstructions, size = 4096, 8 // BPF_MAXINSNS, sizeof(struct sock_filter)
	code := make([]byte, maxInstructions*size)
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(unsafe.Pointer(&code[0])), 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("PTRACE_SECCOMP_GET_FILTER: %w", errno)
	}
	code = code[:n*size]
	const (
		bpfReturn  = unix.BPF_RET | unix.BPF_K
		userNotify = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
		errnoEPERM = 0x00050001 // SECCOMP_RET_ERRNO | EPERM
	)
	for at := 0; at < len(code); at += size {
		if binary.NativeEndian.Uint16(code[at:]) == bpfReturn && binary.NativeEndian.Uint32(code[at+4:]) == userNotify {
			binary.NativeEndian.PutUint32(code[at+4:], errnoEPERM)
		}
	}
	return code, nil
}

// pin keeps a process, all its threads, on one CPU.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin thread %d: %w", tid, err)
		}
	}
	return nil
}
