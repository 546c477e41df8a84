// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
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
	LockWait     time.Duration // negative: do not wait

	// Appended is told of each record that was written, in their order, before Append returns. It must not block, nor
	// keep the event's strings. nil: nobody is.
	Appended func(*audit.Event, Position)
}

// Writer appends to one stream. All methods are safe for concurrent use. A Writer holds three file
// descriptors, all close-on-exec, and a buffer of one record.
type Writer struct {
	enc       *audit.Encoder
	dir       *os.File // locked
	limit     int64
	appended  func(*audit.Event, Position) // may be nil
	recovered Recovered
	write     func(*os.File, []byte) (int, error) // (*os.File).Write; tests inject faults
	truncate  func(*os.File, int64) error
	space     func() (free, total uint64, err error) // of the file system, in bytes

	mu      sync.Mutex
	segment *os.File // guarded by mu, as all below
	number  int
	size    int64  // bytes of whole records in segment
	torn    bool   // segment is longer than size: a failed write could not be undone yet
	seq     uint64 // of the last record
	line    []byte // chain of the last record, then room for the next one
	folded  *folded
	closed  bool
	full    []*os.File // complete segments that are to be synced; a goroutine runs while there are any
	syncErr error
	synced  *sync.Cond // on mu: full is empty
}

// WriteError is a failure of the file system under a stream: the disk is full, over quota, gone bad.
type WriteError struct {
	Op   string // "write", "truncate", "create", "sync"
	Path string
	Err  error // a unix.Errno, where the kernel gave one
}

// Error implements error.
func (e *WriteError) Error() string {
	hint := ""
	if e.Full() {
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
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	if err := lock(dir, o.LockWait); err != nil {
		dir.Close()
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
		enc: audit.NewEncoder(id), dir: dir, limit: o.SegmentBytes, appended: o.Appended,
		recovered: Recovered{Bytes: t.cut, Folded: f.outstanding},
		write:     (*os.File).Write, truncate: (*os.File).Truncate,
		segment: t.segment, number: t.number, size: t.size, seq: t.seq,
		line: append(make([]byte, 0, 2048), t.chain...), folded: f,
	}
	w.synced = sync.NewCond(&w.mu)
	w.space = func() (free, total uint64, err error) { return space(dir) }
	return w, nil
}

// space returns the free and the total bytes of the file system that dir is on, as its users see them (statfs(2)).
func space(dir *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("free space under %s: %w", dir.Name(), err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// Recovered says what was found when the stream was opened.
func (w *Writer) Recovered() Recovered { return w.recovered }

// Seq is the number of the last record; 0 if there is none.
func (w *Writer) Seq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
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
	if w.size > 0 && w.size+int64(len(record)) > w.limit {
		if err := w.rotate(); err != nil {
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
	w.size += int64(len(record))
	w.seq++
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

// rotate begins the next segment. The complete one is synced in the background, because the call that is
// being audited waits for this.
func (w *Writer) rotate() error {
	name := segmentName(w.number + 1)
	if free, total, err := w.space(); err == nil && free < min(total/10, reserve) {
		return writeError("extend", filepath.Join(w.dir.Name(), name), unix.ENOSPC)
	}
	next, err := openAt(w.dir, name, segmentFlags|os.O_EXCL)
	if err != nil {
		return writeError("create", filepath.Join(w.dir.Name(), name), err)
	}
	w.full = append(w.full, w.segment)
	if len(w.full) == 1 {
		go w.syncFull()
	}
	w.segment, w.size, w.number = next, 0, w.number+1
	return nil
}

func (w *Writer) syncFull() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.full) > 0 {
		f := w.full[0]
		w.mu.Unlock()
		err := errors.Join(syncFile(f), syncFile(w.dir), f.Close())
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

// Close syncs the stream and lets go of it. Further calls do nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	for len(w.full) > 0 {
		w.synced.Wait()
	}
	err := errors.Join(w.repair(), w.syncErr, syncFile(w.segment), syncFile(w.dir),
		w.segment.Close(), w.folded.file.Close())
	// A child that was forked and has not exec'ed yet has the lock as well; so it is not left to close(2).
	return errors.Join(err, unix.Flock(int(w.dir.Fd()), unix.LOCK_UN), w.dir.Close())
}
