// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/manifest"
)

// OpenWriter opens the stream in dir, which is a result of Dir, for the container id. It makes the
// directories (mode 0700) and continues after the last whole record; see Recovered for what it found.
// Only the stream's end is read. It waits up to Options.LockWait for another writer; the error then wraps
// ErrLocked. A directory that others could write in is refused.
func OpenWriter(dir string, id audit.Identity, o Options) (*Writer, error) {
	w, err := openWriter(dir, id, o)
	if err != nil {
		return nil, fmt.Errorf("open audit stream: %w", err)
	}
	return w, nil
}

func openWriter(path string, id audit.Identity, o Options) (*Writer, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.LockWait == 0 {
		o.LockWait = DefaultLockWait
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = DefaultFlushInterval
	}
	dir, err := openLocked(path, o.LockWait)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		enc: audit.NewEncoder(id), dir: dir, most: o.SegmentBytes, age: o.SegmentAge, budget: o.Budget, each: o.Synced, interval: o.FlushInterval,
		appended: o.Appended, step: o.step,
		write: (*os.File).Write, truncate: (*os.File).Truncate, sync: datasync,
	}
	w.space = func() (free, total uint64, err error) { return space(dir) }
	w.flushed, w.problem, w.idle = sync.NewCond(&w.mu), o.Problem, true
	if err := w.resume(id, o); err != nil {
		return nil, errors.Join(err, w.closeFiles())
	}
	return w, nil
}

// resume goes on where the writer before has left the stream. What it finds is on the disk and, with a key, signed for when it returns.
func (w *Writer) resume(id audit.Identity, o Options) error {
	var outage bool
	if o.Key != nil {
		boot, err := bootID(o.bootID)
		if err != nil {
			return err
		}
		if w.notary, err = openNotary(w.dir, o.Key, boot); err != nil {
			return err
		}
		w.notary.writer, outage = w, w.notary.outage()
	}
	var signed *manifest.Point
	if outage {
		signed = w.notary.before
	}
	t, err := recoverTail(w.dir, signed)
	if err != nil {
		return err
	}
	w.segment, w.number, w.size, w.seq, w.end = t.segment, t.number, t.size, t.seq, t.end
	w.limit, w.began = w.budget.enter(t.segment.Name(), t.size, w.most), beganAt(t.segment)
	w.line = append(make([]byte, 0, 2048), t.chain...)
	if w.folded, err = openFolded(w.dir, t.seq); err != nil {
		return err
	}
	w.durable = w.mark()
	w.recovered = Recovered{Bytes: t.cut, Folded: w.folded.outstanding}
	if outage {
		w.recovered.Outage = Outage{From: t.at, Until: bootTime(), FlushInterval: w.notary.was.FlushInterval}
	}
	if err := w.takeOver(t); err != nil {
		return err
	}
	w.timer = time.AfterFunc(math.MaxInt64, w.tick)
	if w.notary != nil {
		if err := w.notary.begin(t, id); err != nil {
			w.timer.Stop()
			return err
		}
		w.recovered.Missing = w.notary.missing(t.seq)
	}
	w.timer.Reset(w.interval)
	return nil
}

// closeFiles lets go of a stream that could not be opened.
func (w *Writer) closeFiles() (err error) {
	if w.notary != nil {
		err = w.notary.closeFiles()
	}
	if w.folded != nil {
		err = errors.Join(err, w.folded.file.Close())
	}
	if w.segment != nil {
		w.budget.leave(w.segment.Name(), w.size)
		err = errors.Join(err, w.segment.Close())
	}
	return errors.Join(err, w.dir.Close())
}
