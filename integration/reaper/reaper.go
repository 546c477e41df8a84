// SPDX-License-Identifier: Apache-2.0

// Package reaper is what a process 1 does while its program runs.
package reaper

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Wait waits for the child with this number, and for all others, orphans among them, until it has ended. It returns its exit status, or
// 128 and the signal's number (as shells do). Nobody else may wait for children meanwhile, so exec.Cmd.Wait must not be called.
func Wait(child int) (status int, err error) {
	for {
		var ended unix.WaitStatus
		pid, err := unix.Wait4(-1, &ended, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case pid == child && ended.Signaled():
			return 128 + int(ended.Signal()), nil
		case pid == child:
			return ended.ExitStatus(), nil
		}
	}
}
