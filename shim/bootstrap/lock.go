// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errHeld says that a pod's daemon lives.
var errHeld = errors.New("the pod's shim is running")

// claim makes a pod's directory if need be and takes its lock for a daemon: exclusively, and for as long as the file
// or a copy of it in another process is open (flock(2)). errHeld: a daemon or a delete has it.
func claim(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by the one who had it
		}
		if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if err := tryLock(f, unix.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
		if current(f) {
			return f, nil
		}
		f.Close() // of a directory that was removed meanwhile
	}
}

// inspect takes the lock of a pod whose daemon is dead, shared with other deletes. errHeld: the daemon lives, or a
// start is under way. os.ErrNotExist: nothing is left of the pod.
func inspect(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// released waits until a dying daemon has released its lock, and returns what inspect does.
func released(ctx context.Context, dir string, patience time.Duration) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		f, err := inspect(dir)
		if !errors.Is(err, errHeld) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func tryLock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// current says that f is still what its name leads to.
func current(f *os.File) bool {
	a, errA := f.Stat()
	b, errB := os.Lstat(f.Name())
	return errA == nil && errB == nil && os.SameFile(a, b)
}
