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

// rotate begins the next segment. The complete one is synced in the background, because the call that is being audited waits for this.
// With Synced all is on the disk before, so that what is not is in the last segment; if that had to be waited for, nothing else is done.
func (w *Writer) rotate() error {
	if w.each && w.done < w.tickets {
		return w.commit(w.ticket())
	}
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
	if w.each {
		if err := syncDir(w.dir); err != nil { // a name that is made anew is synced anew
			w.budget.leave(path, 0)
			return errors.Join(err, next.Close(), unix.Unlinkat(int(w.dir.Fd()), name, 0))
		}
	} else {
		w.created++
	}
	w.budget.leave(w.segment.Name(), w.size)
	w.did("rotate")
	w.full = append(w.full, complete{w.segment, w.number, w.seq, string(w.line[:chainLen]), w.size})
	w.segment, w.size, w.number, w.limit, w.began = next, 0, w.number+1, limit, time.Time{}
	if w.each {
		w.durable = w.mark()
	}
	w.idle = false
	w.timer.Reset(0)
	return nil
}

// space returns the free and the total bytes of the file system that dir is on, as its users see them (statfs(2)).
func space(dir *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("free space under %s: %w", dir.Name(), err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
