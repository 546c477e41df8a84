// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/internal/flock"
)

const (
	// DefaultSegmentBytes is the size at which a segment is complete.
	DefaultSegmentBytes = 16 << 20
	// DefaultLockWait is how long OpenWriter waits for another Writer to let go of the stream.
	DefaultLockWait = 2 * time.Second
	// DefaultFlushInterval is after what time a record is on the disk, and signed for.
	DefaultFlushInterval = time.Second

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

	// Synced has each record wait until it is on the disk. Otherwise records are brought there together, FlushInterval after the oldest
	// of them at the latest. With a key, that is also when they are signed for.
	Synced        bool
	FlushInterval time.Duration

	// Appended is told of each record that was written, in their order, before Append returns, also if with Synced it then
	// fails because the disk does. It must not block, nor keep the event's strings. nil: nobody is.
	Appended func(*audit.Event, Position)

	// Key signs the stream: its manifest, its head, and what the ledger in the streams' root is told of it. nil: it is not signed.
	Key *signature.Key
	// Problem is told, from another goroutine, when an open stream cannot be signed, or brought to the disk in the background, once for
	// each time that this begins. nil: nobody is.
	Problem func(error)

	step   func(string) // tests look at the files after each step of signing
	bootID string       // of the kernel, for tests that have the node go down
}

// Writer appends to one stream. All methods are safe for concurrent use. A Writer holds three file
// descriptors, five with a key, all close-on-exec, and a buffer of one record.
type Writer struct {
	enc       *audit.Encoder
	dir       *os.File // locked
	most      int64    // bytes that a segment gets at most
	age       time.Duration
	budget    *Budget
	each      bool                         // each record waits until it is on the disk
	interval  time.Duration                // after which what is written is there, and signed for
	appended  func(*audit.Event, Position) // may be nil
	recovered Recovered
	notary    *notary                             // nil: the stream is not signed
	write     func(*os.File, []byte) (int, error) // (*os.File).Write; tests inject faults
	truncate  func(*os.File, int64) error
	sync      func(*os.File) error                   // fdatasync(2)
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
	bytes   uint64 // of the records that this Writer has written
	closed  bool
	limit   int64     // bytes that segment may get
	began   time.Time // when the first record came to segment; zero: it has none
	flushes           // what is on the disk
}

// lag is how long a record is not on the disk, at most; 0 if its call waits for that.
func (w *Writer) lag() time.Duration {
	if w.each {
		return 0
	}
	return w.interval
}

// takeOver syncs what the writer before may not have synced: the segments that have no line in the manifest, the last one, and the
// directories up to the streams' root.
func (w *Writer) takeOver(t *tail) error {
	first := t.number
	if w.notary != nil && w.notary.resumed {
		first = w.notary.listed + 1
	}
	for number := first; number < t.number; number++ {
		c := complete{number: number}
		file, err := openAt(w.dir, segmentName(number), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) && t.packed != nil && t.packed.number == number {
			c = *t.packed
			file, err = openAt(w.dir, segmentName(number)+CompressedSuffix, os.O_RDONLY)
		}
		if errors.Is(err, fs.ErrNotExist) { // whoever verifies says so
			continue
		}
		if err == nil {
			err = errors.Join(w.syncFile(file), file.Close())
		}
		if err != nil {
			return err
		}
		w.notary.waiting = append(w.notary.waiting, c)
	}
	return errors.Join(w.syncFile(w.segment), syncTree(w.dir))
}

func (w *Writer) did(step string) {
	if w.step != nil {
		w.step(step)
	}
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
// is in the file and survives this process; with Options.Synced it is on the disk and survives the node. When it fails, the stream is
// as before, the number is not used up, and the same event can be tried again: the error is a *WriteError for trouble with the file
// system, an *audit.InvalidError for an event that can never be written, or wraps os.ErrClosed.
//
// It blocks as long as the file system does, and not on other streams. With Options.Synced it waits for fdatasync(2), which all calls
// that wait share. It does not allocate.
func (w *Writer) Append(e *audit.Event) error { return w.AppendFolded(e, 0) }

// Fold counts n events that are answered without a record of their own. A later AppendFolded settles
// them; if this process dies before, the next OpenWriter reports them. The count is as safe as a record is; after an error it may not be.
func (w *Writer) Fold(n uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	if err := w.folded.add(n); err != nil {
		return err
	}
	return w.written()
}

// Folded is how many folded events are in no record yet.
func (w *Writer) Folded() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.folded.unsettled()
}

// AppendFolded is Append for a record that stands for n events which Fold has counted. Whenever the
// process dies, they are then counted once: by the record, or by the next OpenWriter. When the node dies, once at least.
func (w *Writer) AppendFolded(e *audit.Event, n uint64) error {
	if err := e.Validate(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.put(e, n); err != nil {
		return err
	}
	return w.written()
}

// Put is AppendFolded, but it does not wait for the disk: what the record is of must not go on before Commit has returned nil.
func (w *Writer) Put(e *audit.Event, n uint64) (audit.Ticket, error) {
	if err := e.Validate(); err != nil {
		return audit.Ticket{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.put(e, n); err != nil {
		return audit.Ticket{}, err
	}
	w.note()
	return w.ticket(), nil
}

// Commit waits, with Options.Synced, until a record is on the disk that Put has written. After an error the record is not in the stream,
// and can be tried again. Who commits several records, in their order, waits once.
func (w *Writer) Commit(t audit.Ticket) error {
	if !w.each {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commit(t)
}

// put writes a record.
func (w *Writer) put(e *audit.Event, n uint64) error {
	line, err := w.next(e)
	if err != nil {
		return err
	}
	record := line[chainLen:]
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
	if cap(line) > keepLine {
		line = append(make([]byte, 0, 2048), line[len(line)-len(chainEnd)-chainLen:][:chainLen]...)
	} else {
		copy(line, line[len(line)-len(chainEnd)-chainLen:][:chainLen])
	}
	w.line = line[:chainLen]
	return nil
}

// next returns the chain of the last record and the next record, for which there is room in the segment.
func (w *Writer) next(e *audit.Event) ([]byte, error) {
	for {
		switch {
		case w.closed:
			return nil, os.ErrClosed
		case w.failed != nil:
			return nil, w.failed
		}
		if err := w.repair(); err != nil {
			return nil, err
		}
		line := seal(w.enc.AppendJSON(w.line, e, w.seq+1))
		bytes := int64(len(line) - chainLen)
		if !w.isFull(bytes) {
			return line, nil
		}
		if err := w.goOn(e.Kind, bytes); err != nil { // it may have let others write meanwhile
			return nil, err
		}
	}
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
	w.timer.Stop()
	err := w.repair()
	if err == nil {
		err = w.flush()
	}
	for w.flushing { // nobody is to sync a descriptor that is another file's by then
		w.flushed.Wait()
	}
	w.budget.leave(w.segment.Name(), w.size)
	err = errors.Join(err, w.folded.close(w.sync), w.segment.Close())
	at, end, folded := w.durable.point(), w.end, w.folded.outstanding
	w.mu.Unlock()
	if w.notary != nil { // whose lock comes before ours
		err = errors.Join(err, w.notary.close(at, end, folded, err == nil))
	}
	return errors.Join(err, flock.Release(w.dir), w.dir.Close())
}
