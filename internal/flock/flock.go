// SPDX-License-Identifier: Apache-2.0

// Package flock waits for the lock of a file (flock(2)).
package flock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process has kept the lock.
var ErrHeld = errors.New("another process has the lock")

// Exclusive locks an open file or directory, and waits up to patience for others (0 or less: not at all); then it returns ErrHeld. It
// polls, every interval, because a process that was just killed keeps its locks until the kernel has closed its files.
func Exclusive(file *os.File, patience, interval time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(interval) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return &os.PathError{Op: "flock", Path: file.Name(), Err: err}
		case time.Now().After(deadline):
			return ErrHeld
		}
	}
}

// Release gives the lock back. Closing the file is not enough: a child that was forked and has not exec'ed yet has it as well.
func Release(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_UN) }
