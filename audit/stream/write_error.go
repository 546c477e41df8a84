// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// WriteError is a failure of the file system under a stream: the disk is full, over quota, gone bad.
type WriteError struct {
	Op   string // "write", "truncate", "create", "sync"
	Path string
	Err  error // a unix.Errno, where the kernel gave one
}

// Error implements error.
func (e *WriteError) Error() string {
	hint := ""
	if over := new(overBudget); e.Full() && !errors.As(e.Err, &over) {
		hint = "; make room, or move the audit directory to a larger file system"
	}
	return fmt.Sprintf("audit stream: %s %s: %v%s", e.Op, e.Path, e.Err, hint)
}

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// Full tells whether space is what is wanting, so that trying again can help.
func (e *WriteError) Full() bool {
	return errors.Is(e.Err, unix.ENOSPC) || errors.Is(e.Err, unix.EDQUOT) || errors.Is(e.Err, unix.EFBIG)
}

// writeError strips what os adds to an errno, since op and path are said once already.
func writeError(op, path string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &WriteError{Op: op, Path: path, Err: err}
}
