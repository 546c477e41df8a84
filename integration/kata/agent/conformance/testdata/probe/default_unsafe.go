// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"unsafe"
)

// byDefault gives a signal its default action, which the Go runtime takes away from every program.
func byDefault(signal syscall.Signal) error {
	action := struct{ handler, flags, restorer, mask uint64 }{} // struct kernel_sigaction; SIG_DFL is 0
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// terminalSize is the size of the terminal that is the standard input.
func terminalSize() (rows, columns uint16, err error) {
	var size struct{ rows, columns, x, y uint16 } // struct winsize
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, 0, errno
	}
	return size.rows, size.columns, nil
}
