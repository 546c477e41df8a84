// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked is what [Tree.Lock] returns while another has the lock.
var ErrLocked = errors.New("another process is at work on this node")

// Lock takes the lock that a file stands for, in whatever container the other takers are. It does not wait. unlock gives the lock back
// and removes the file; the end of the process gives it back too. Only root can open the file, so that nobody else holds root up.
func (t *Tree) Lock(name string) (unlock func() error, err error) {
	for {
		f, err := t.lock(name)
		if err != nil {
			return nil, err
		}
		// Whoever had the lock before may have removed the file that we have opened, and then ours is a lock on nothing.
		now, err := t.Lstat(name)
		if err == nil {
			var opened os.FileInfo
			if opened, err = f.Stat(); err == nil && os.SameFile(now, opened) {
				return func() error { return errors.Join(t.Remove(name), f.Close()) }, nil
			}
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

func (t *Tree) lock(name string) (f *os.File, err error) {
	err = t.in(name, func(dir *os.Root, base string) error {
		f, err = dir.OpenFile(base, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}
