// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// rotate begins the next segment. The complete one is synced in the background, because the call that is
// being audited waits for this.
func (w *Writer) rotate() error {
	name := segmentName(w.number + 1)
	if free, total, err := w.space(); err == nil && free < min(total/10, reserve) {
		return writeError("extend", filepath.Join(w.dir.Name(), name), unix.ENOSPC)
	}
	path := filepath.Join(w.dir.Name(), name)
	limit, err := w.budget.grant(path, w.most)
	if err != nil {
		return writeError("extend", path, err)
	}
	next, err := openAt(w.dir, name, segmentFlags|os.O_EXCL)
	if err != nil {
		w.budget.leave(path, 0)
		return writeError("create", path, err)
	}
	w.budget.leave(w.segment.Name(), w.size)
	w.did("rotate")
	w.full = append(w.full, complete{w.segment, w.number, w.seq, string(w.line[:chainLen]), w.size})
	if len(w.full) == 1 {
		go w.syncFull()
	}
	w.segment, w.size, w.number, w.limit, w.began = next, 0, w.number+1, limit, time.Time{}
	return nil
}

func (w *Writer) syncFull() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.full) > 0 {
		c := w.full[0]
		w.mu.Unlock()
		err := errors.Join(syncFile(c.file), syncFile(w.dir), c.file.Close())
		if w.notary != nil {
			w.notary.complete(c)
		}
		w.mu.Lock()
		w.syncErr = errors.Join(w.syncErr, err)
		w.full = w.full[1:]
	}
	w.synced.Broadcast()
}

func syncFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return writeError("sync", f.Name(), err)
	}
	return nil
}

// Sync returns when all records so far are on the disk (fsync(2)). Appends go on meanwhile. Its error
// includes those of the syncs in the background since the last Sync.
func (w *Writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	segment := w.segment
	w.mu.Unlock()
	err := errors.Join(syncFile(segment), syncFile(w.dir))
	w.mu.Lock()
	if errors.Is(err, os.ErrClosed) { // it was rotated away meanwhile, and synced for that
		err = nil
	}
	for len(w.full) > 0 {
		w.synced.Wait()
	}
	err = errors.Join(err, w.syncErr)
	w.syncErr = nil
	return err
}

// space returns the free and the total bytes of the file system that dir is on, as its users see them (statfs(2)).
func space(dir *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("free space under %s: %w", dir.Name(), err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
