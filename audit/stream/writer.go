// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/internal/flock"
)

const (
	// DefaultSegmentBytes is the size at which a segment is complete.
	DefaultSegmentBytes = 16 << 20
	// DefaultLockWait is how long OpenWriter waits for another Writer to let go of the stream.
	DefaultLockWait = 2 * time.Second

	segmentFlags = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	// reserve is what is kept of a file system, or a tenth of it if that is less, for streams that have not filled
	// their first segment: one container that floods its own stream stalls before the others do.
	reserve = 1 << 30

	keepLine = 16 << 10 // bytes of line buffer that a Writer keeps; larger ones are given back
)

// Options are a Writer's; the zero value means the defaults.
type Options struct {
	SegmentBytes int64         // size above which no record is added to a segment
	SegmentAge   time.Duration // age of its first record above which none is added to a segment; 0: whatever its age
	LockWait     time.Duration // negative: do not wait
	Budget       *Budget       // of the disk; nil: none

	// Appended is told of each record that was written, in their order, before Append returns. It must not block, nor
	// keep the event's strings. nil: nobody is.
	Appended func(*audit.Event, Position)

	// Key signs the stream: its manifest, its head, and what the ledger in the streams' root is told of it. nil: it is not signed.
	Key *signature.Key
	// Problem is told, from another goroutine, when an open stream cannot be signed, once for each time that this begins. nil: nobody is.
	Problem func(error)

	step func(string) // tests look at the files after each step of signing
}

// Writer appends to one stream. All methods are safe for concurrent use. A Writer holds three file
// descriptors, five with a key, all close-on-exec, and a buffer of one record.
type Writer struct {
	enc       *audit.Encoder
	dir       *os.File // locked
	most      int64    // bytes that a segment gets at most
	age       time.Duration
	budget    *Budget
	appended  func(*audit.Event, Position) // may be nil
	recovered Recovered
	notary    *notary                             // nil: the stream is not signed
	write     func(*os.File, []byte) (int, error) // (*os.File).Write; tests inject faults
	truncate  func(*os.File, int64) error
	space     func() (free, total uint64, err error) // of the file system, in bytes
	step      func(string)                           // tests look at the files after each step

	mu      sync.Mutex
	segment *os.File // guarded by mu, as all below
	number  int
	size    int64  // bytes of whole records in segment
	torn    bool   // segment is longer than size: a failed write could not be undone yet
	seq     uint64 // of the last record
	line    []byte // chain of the last record, then room for the next one
	folded  *folded
	end     bool   // the last record is of kind end
	signed  bool   // no record came since the notary looked
	bytes   uint64 // of the records that this Writer has written
	closed  bool
	limit   int64      // bytes that segment may get
	began   time.Time  // when the first record came to segment; zero: it has none
	full    []complete // segments that are to be synced; a goroutine runs while there are any
	syncErr error
	synced  *sync.Cond // on mu: full is empty
}

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
	dir, err := openLocked(path, o.LockWait)
	if err != nil {
		return nil, err
	}
	t, err := recoverTail(dir)
	if err != nil {
		dir.Close()
		return nil, err
	}
	f, err := openFolded(dir, t.seq)
	if err != nil {
		t.segment.Close()
		dir.Close()
		return nil, err
	}
	w := &Writer{
		enc: audit.NewEncoder(id), dir: dir, most: o.SegmentBytes, age: o.SegmentAge, budget: o.Budget, appended: o.Appended, step: o.step,
		recovered: Recovered{Bytes: t.cut, Folded: f.outstanding},
		write:     (*os.File).Write, truncate: (*os.File).Truncate,
		segment: t.segment, number: t.number, size: t.size, seq: t.seq, end: t.end, signed: true,
		line: append(make([]byte, 0, 2048), t.chain...), folded: f,
	}
	w.limit, w.began = w.budget.enter(t.segment.Name(), t.size, w.most), beganAt(t.segment)
	w.synced = sync.NewCond(&w.mu)
	w.space = func() (free, total uint64, err error) { return space(dir) }
	if o.Key != nil {
		if err := w.sign(t, id, o); err != nil {
			w.budget.leave(t.segment.Name(), t.size)
			return nil, errors.Join(err, t.segment.Close(), f.file.Close(), dir.Close())
		}
	}
	return w, nil
}

// sign has a notary begin, and list what a writer before did not come to list.
func (w *Writer) sign(t *tail, id audit.Identity, o Options) error {
	n, err := openNotary(w, t, o)
	if err != nil {
		return err
	}
	for number := n.listed + 1; number < t.number && err == nil; number++ {
		var file *os.File
		file, err = openAt(w.dir, segmentName(number), os.O_RDONLY)
		switch {
		case err == nil:
			w.full = append(w.full, complete{file: file, number: number})
		case errors.Is(err, fs.ErrNotExist) && t.packed != nil && t.packed.number == number:
			c := *t.packed
			c.file, err = openAt(w.dir, segmentName(number)+CompressedSuffix, os.O_RDONLY)
			w.full = append(w.full, c)
		case errors.Is(err, fs.ErrNotExist): // whoever verifies says so
			err = nil
		}
	}
	if err == nil {
		err = n.begin(t, id)
	}
	if err != nil {
		for _, c := range w.full {
			c.file.Close()
		}
		return errors.Join(err, n.closeFiles())
	}
	w.notary, w.recovered.Missing = n, n.missing(t.seq)
	if len(w.full) > 0 {
		go w.syncFull()
	}
	return nil
}

func (w *Writer) did(step string) {
	if w.step != nil {
		w.step(step)
	}
}

// signing returns the end of the stream, for the notary to sign.
func (w *Writer) signing() manifest.Point {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signed = true
	return w.point()
}

func (w *Writer) point() manifest.Point {
	return manifest.Point{Seq: w.seq, Chain: string(w.line[:chainLen]), Segment: w.number, Offset: w.size}
}

// Recovered says what was found when the stream was opened.
func (w *Writer) Recovered() Recovered { return w.recovered }

// Seq is the number of the last record; 0 if there is none.
func (w *Writer) Seq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

// Bytes is how many bytes the records have that this Writer has written.
func (w *Writer) Bytes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// Append writes the event as the stream's next record, with one write(2). When it returns nil, the record
// is in the file and survives this process. When it fails, the stream is as before, the number is not
// used up, and the same event can be tried again: the error is a *WriteError for trouble with the file
// system, an *audit.InvalidError for an event that can never be written, or wraps os.ErrClosed.
//
// It blocks as long as the file system does, and not on other streams. It does not allocate.
func (w *Writer) Append(e *audit.Event) error { return w.AppendFolded(e, 0) }

// Fold counts n events that are answered without a record of their own. A later AppendFolded settles
// them; if this process dies before, the next OpenWriter reports them.
func (w *Writer) Fold(n uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	return w.folded.add(n)
}

// Folded is how many folded events are in no record yet.
func (w *Writer) Folded() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.folded.outstanding
}

// AppendFolded is Append for a record that stands for n events which Fold has counted. Whenever the
// process dies, they are then counted once: by the record, or by the next OpenWriter.
func (w *Writer) AppendFolded(e *audit.Event, n uint64) error {
	if err := e.Validate(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	if err := w.repair(); err != nil {
		return err
	}
	line := seal(w.enc.AppendJSON(w.line, e, w.seq+1))
	record := line[chainLen:]
	if w.isFull(int64(len(record))) {
		if err := w.goOn(e.Kind, int64(len(record))); err != nil {
			return err
		}
	}
	if err := w.folded.begin(n, w.seq+1); err != nil {
		return err
	}
	if _, err := w.write(w.segment, record); err != nil {
		w.torn = true
		w.folded.end(false)
		_ = w.repair() // if it fails, the next Append tries again, and OpenWriter after that
		return writeError("write", w.segment.Name(), err)
	}
	w.folded.end(true)
	if w.appended != nil {
		w.appended(e, Position{w.number, w.size})
	}
	w.grow(int64(len(record)))
	w.bytes += uint64(len(record))
	w.seq++
	w.end = e.Kind == audit.KindEnd
	if w.signed && w.notary != nil {
		w.signed = false
		w.notary.timer.Reset(signEvery)
	}
	if cap(line) > keepLine {
		line = append(make([]byte, 0, 2048), line[len(line)-len(chainEnd)-chainLen:][:chainLen]...)
	} else {
		copy(line, line[len(line)-len(chainEnd)-chainLen:][:chainLen])
	}
	w.line = line[:chainLen]
	return nil
}

// repair cuts what a failed write left behind.
func (w *Writer) repair() error {
	if !w.torn {
		return nil
	}
	if err := w.truncate(w.segment, w.size); err != nil {
		return writeError("truncate", w.segment.Name(), err)
	}
	w.torn = false
	return nil
}

// Close syncs the stream, signs its end, and lets go of it. Further calls do nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	for len(w.full) > 0 {
		w.synced.Wait()
	}
	w.budget.leave(w.segment.Name(), w.size)
	err := errors.Join(w.repair(), w.syncErr, syncFile(w.segment), syncFile(w.dir),
		w.segment.Close(), w.folded.close())
	at, end, folded := w.point(), w.end, w.folded.outstanding
	w.mu.Unlock()
	if w.notary != nil { // whose lock comes before ours
		err = errors.Join(err, w.notary.close(at, end, folded))
	}
	return errors.Join(err, flock.Release(w.dir), w.dir.Close())
}
