// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/manifest"
)

// flushRetry is how long after a flush that failed the next one comes, at most.
const flushRetry = 100 * time.Millisecond

// flushes are what a Writer brings to the disk. One flush is under way at a time, and covers all that was written before it began: whoever
// waits shares it, and what is written meanwhile is for the next one.
//
// After a sync that failed, what it was to bring to the disk may be gone, and the next sync of the same pages says that all is well (the
// kernel marks them clean). So what failed is written again before it is synced again: with Synced by whoever waits for it, since the
// stream is cut back to what is on the disk; otherwise by the Writer, which takes no record until that has succeeded.
type flushes struct {
	turn     sync.Mutex  // held by Sync; comes before all other locks
	flushed  *sync.Cond  // on mu: a flush has ended
	flushing bool        // guarded by the Writer's mu, as all below
	tickets  uint64      // of what was written: records, counts
	done     uint64      // those up to this one are on the disk, or cut
	durable  mark        // records up to here are on the disk
	full     []complete  // segments that are complete, and not known to be on the disk
	synced   []complete  // that are, and are not told to the notary
	created  int         // segments; their names are on the disk up to named
	named    int         //
	cuts     uint64      // how often the stream was cut back
	lost     []span      // of tickets that were cut, in their order; the earlier ones may be one, with what is between them
	cut      error       // why, the last time
	failed   error       // why nothing can be brought to the disk at present; nil with Synced
	idle     bool        // nothing came since the last flush began
	timer    *time.Timer // of the next flush
	problem  func(error) // may be nil
	failing  bool        // the problem was told
}

// span is the tickets behind one, up to another.
type span struct{ from, to uint64 }

// maxSpans bounds what is known of cuts, in spans.
const maxSpans = 64

// mark is a place behind a record, with all that has to be put back if the stream is cut there.
type mark struct {
	seq    uint64
	chain  [chainLen]byte
	number int
	size   int64
	bytes  uint64
	end    bool
}

func (m *mark) point() manifest.Point {
	return manifest.Point{Seq: m.seq, Chain: string(m.chain[:]), Segment: m.number, Offset: m.size}
}

func (w *Writer) mark() mark {
	return mark{w.seq, [chainLen]byte(w.line[:chainLen]), w.number, w.size, w.bytes, w.end}
}

// written is called when something was written that is to be on the disk, and with Synced waits until it is.
func (w *Writer) written() error {
	w.note()
	if !w.each {
		return nil
	}
	return w.commit(w.ticket())
}

// note gives what was written a ticket, and has it flushed in time.
func (w *Writer) note() {
	w.tickets++
	if w.idle {
		w.idle = false
		w.timer.Reset(w.interval)
	}
}

func (w *Writer) ticket() audit.Ticket { return audit.Ticket{Number: w.tickets, Cuts: w.cuts} }

// commit waits until what has the ticket is on the disk. The error says that it was cut.
func (w *Writer) commit(t audit.Ticket) error {
	for w.done < t.Number {
		if w.flushing {
			w.flushed.Wait()
		} else {
			_ = w.flush() // a failure is a cut
		}
	}
	if w.cuts > t.Cuts && slices.ContainsFunc(w.lost, func(s span) bool { return s.from < t.Number && t.Number <= s.to }) {
		return w.cut
	}
	return nil
}

// flush brings all that is written to the disk. The caller holds w.mu, which is free meanwhile.
func (w *Writer) flush() error {
	for w.flushing {
		w.flushed.Wait()
	}
	if w.done == w.tickets && len(w.full) == 0 && w.created == w.named && w.failed == nil {
		return nil
	}
	counts, err := w.folded.beginFlush()
	to, ticket, created := w.mark(), w.tickets, w.created
	batch := batch{segment: w.segment, full: w.full, counts: counts, names: created > w.named}
	if w.failed != nil {
		batch.from, batch.to = w.durable, to
	}
	w.flushing = true
	w.mu.Unlock()
	if err == nil {
		err = w.bring(&batch)
	}
	w.mu.Lock()
	w.flushing = false
	defer w.flushed.Broadcast()
	w.folded.endFlush(err == nil)
	switch {
	case err == nil:
		w.durable, w.done, w.named, w.failed = to, ticket, created, nil
		w.synced, w.full = append(w.synced, batch.full...), w.full[len(batch.full):]
	case w.each:
		w.cutBack(err)
	default:
		w.failed = err
	}
	return err
}

// batch is what one flush brings to the disk.
type batch struct {
	segment *os.File
	full    []complete
	counts  *os.File // nil: they are there
	names   bool     // of new segments
	// What is to be written again because a flush of it failed; nothing if the two are equal.
	from, to mark
}

func (w *Writer) bring(b *batch) error {
	if b.from != b.to {
		if err := w.rewrite(b.from, b.to); err != nil {
			return err
		}
	}
	if b.counts != nil { // before the records that some of them are in: none is lost then, see folded
		if err := w.syncFile(b.counts); err != nil {
			return err
		}
	}
	for _, c := range b.full {
		if err := w.syncFile(c.file); err != nil {
			return err
		}
	}
	if err := w.syncFile(b.segment); err != nil {
		return err
	}
	if b.names {
		if err := syncDir(w.dir); err != nil {
			return err
		}
	}
	for _, c := range b.full {
		if err := c.file.Close(); err != nil {
			return writeError("close", c.file.Name(), err)
		}
	}
	w.did("flush")
	return nil
}

// cutBack takes back what is not on the disk, and with Synced is in the last segment.
func (w *Writer) cutBack(why error) {
	d := &w.durable
	if last := len(w.lost) - 1; last >= 0 && w.lost[last].to == w.done {
		w.lost[last].to = w.tickets
	} else if w.lost = append(w.lost, span{w.done, w.tickets}); len(w.lost) > maxSpans {
		w.lost[1].from = w.lost[0].from
		w.lost = slices.Delete(w.lost, 0, 1)
	}
	w.cuts, w.cut, w.done = w.cuts+1, why, w.tickets
	w.seq, w.size, w.bytes, w.end, w.torn = d.seq, d.size, d.bytes, d.end, true
	w.line = append(w.line[:0], d.chain[:]...)
	if w.size == 0 {
		w.began = time.Time{}
	}
	_ = w.repair() // if it fails, the next Append tries again, and OpenWriter after that
	w.folded.cut()
}

// rewrite writes the records between two places again, where they are, so that the kernel has them to sync once more. It fails if they
// are not what was written.
func (w *Writer) rewrite(from, to mark) error {
	link := Link{from.seq, string(from.chain[:])}
	if from.seq == 0 {
		link = Link{}
	}
	for number := from.number; number <= to.number; number++ {
		offset, end := int64(0), int64(-1)
		if number == from.number {
			offset = from.size
		}
		if number == to.number {
			end = to.size
		}
		if err := w.rewriteSegment(number, offset, end, &link); err != nil {
			return writeError("write again", filepath.Join(w.dir.Name(), segmentName(number)), err)
		}
	}
	if link != (Link{to.seq, string(to.chain[:])}) {
		return writeError("write again", filepath.Join(w.dir.Name(), segmentName(to.number)), errors.New("records are gone that were written"))
	}
	return nil
}

// rewriteSegment does so in one segment, from an offset to another; -1: to its end.
func (w *Writer) rewriteSegment(number int, offset, end int64, link *Link) (err error) {
	file, err := openAt(w.dir, segmentName(number), os.O_RDWR) // not for appending
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if end < 0 {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		end = info.Size()
	}
	in := bufio.NewReaderSize(io.NewSectionReader(file, offset, end-offset), audit.MaxRecord)
	for offset < end {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		next, err := link.Follow(line)
		if err != nil {
			return fmt.Errorf("at offset %d: %w", offset, err)
		}
		if _, err := file.WriteAt(line, offset); err != nil {
			return err
		}
		*link, offset = next, offset+int64(len(line))
	}
	return nil
}

// Sync returns when all records so far are on the disk, and signed for as far as that can be. Appends go on meanwhile.
func (w *Writer) Sync() error {
	w.turn.Lock() // so no more than one waits for a disk that hangs: until it goes on, nothing starts the timer again
	defer w.turn.Unlock()
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return os.ErrClosed
	}
	w.idle = true
	err := w.flush()
	w.mu.Unlock()
	var unsigned error
	if w.notary != nil {
		unsigned = w.notary.settle()
	}
	w.report(err, unsigned)
	return err
}

// tick is the timer's Sync.
func (w *Writer) tick() { _ = w.Sync() }

// report tells of problems once, until there are none, and has another try made.
func (w *Writer) report(unsynced, unsigned error) {
	err := errors.Join(unsynced, unsigned)
	w.mu.Lock()
	told := w.failing
	w.failing = err != nil
	if err != nil && !w.closed {
		w.idle = false
		w.timer.Reset(min(w.interval, flushRetry))
	}
	w.mu.Unlock()
	if err == nil || told || w.problem == nil {
		return
	}
	what := "signed"
	if unsynced != nil {
		what = "brought to the disk"
	}
	w.problem(fmt.Errorf("audit stream %s cannot be %s at present; it is tried again: %w", w.dir.Name(), what, err))
}

// signing returns how far the notary may sign, and what it is to list.
func (w *Writer) signing() (at manifest.Point, list []complete) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list, w.synced = w.synced, nil
	return w.durable.point(), list
}

func (w *Writer) syncFile(f *os.File) error {
	if err := w.sync(f); err != nil {
		return writeError("sync", f.Name(), err)
	}
	return nil
}

// datasync is fdatasync(2): the data, and the size that it takes to read them.
func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// syncDir brings a directory's entries to the disk: that a file is there is not its own matter (fsync(2)).
func syncDir(dir *os.File) error {
	if err := dir.Sync(); err != nil {
		return writeError("sync", dir.Name(), err)
	}
	return nil
}

// syncTree brings the entries of a stream's directory to the disk, and those that lead to it: the pod's, the root's, and the root itself.
func syncTree(dir *os.File) error {
	err := syncDir(dir)
	for path := dir.Name(); err == nil && path != filepath.Dir(path); {
		path = filepath.Dir(path)
		var above *os.File
		if above, err = os.Open(path); err != nil {
			return err
		}
		err = errors.Join(syncDir(above), above.Close())
		if path == filepath.Dir(filepath.Dir(filepath.Dir(dir.Name()))) { // what the root stands in
			break
		}
	}
	return err
}
