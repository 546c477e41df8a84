// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

// Reader reads the lines of one stream, segment after segment, while it may be written. It does not judge
// what is in them. Not safe for concurrent use.
type Reader struct {
	dir     string
	from    stream.Position // where the first line begins
	segment stream.Segment
	file    *File  // nil: no segment is open
	later   bool   // a later segment exists, so this one is complete
	base    int64  // offset of buf[0] in the segment
	buf     []byte // what was read
	used    int    // bytes of buf that were returned
	start   int64  // offset of the last line
}

// DamageError says that bytes of a segment are no line, or that the rest of it cannot be read. The Reader
// has passed over that and goes on.
type DamageError struct {
	Path   string
	Offset int64
	Bytes  int64
	Err    error // why the segment cannot be read; nil: the Bytes at Offset are no line
}

// Unwrap returns Err.
func (e *DamageError) Unwrap() error { return e.Err }

// Error implements error.
func (e *DamageError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: unreadable from offset %d: %v", e.Path, e.Offset, e.Err)
	}
	return fmt.Sprintf("%s: %d bytes at offset %d are no record", e.Path, e.Bytes, e.Offset)
}

// OpenReader opens the stream in dir at its first segment whose number is at least from. The stream may
// still be empty.
func OpenReader(dir string, from int) (*Reader, error) {
	if _, err := stream.Segments(dir); err != nil {
		return nil, err
	}
	return &Reader{dir: dir, segment: stream.Segment{Number: max(from, 1) - 1}, buf: make([]byte, 0, 16<<10)}, nil
}

// OpenReaderAt is OpenReader at a position of a record, or behind the last one. If retention has removed the segment, the next one
// that is there is read from its beginning.
func OpenReaderAt(dir string, at stream.Position) (*Reader, error) {
	r, err := OpenReader(dir, at.Segment)
	if err == nil {
		r.from = at
	}
	return r, err
}

// Next returns the next line with its newline. It is valid until the next call. At the present end of
// the stream, and before a line that is not complete yet, it returns io.EOF; later calls go on from
// there. A *DamageError is not the end either.
func (r *Reader) Next() ([]byte, error) {
	for {
		if r.file == nil {
			if err := r.advance(); err != nil {
				return nil, err
			}
		}
		if i := bytes.IndexByte(r.buf[r.used:], '\n'); i >= 0 && i < audit.MaxRecord {
			line := r.buf[r.used : r.used+i+1]
			r.start = r.base + int64(r.used)
			r.used += len(line)
			return line, nil
		}
		if len(r.buf)-r.used >= audit.MaxRecord {
			return nil, r.skipLine()
		}
		err := r.fill()
		if !errors.Is(err, io.EOF) {
			if err != nil {
				return nil, r.giveUp(err)
			}
			continue
		}
		// Forget the piece of a line: its writer may yet take it back and write another one.
		piece := int64(len(r.buf) - r.used)
		r.base, r.buf, r.used = r.base+int64(r.used), r.buf[:0], 0
		if !r.later {
			// Look again after the next segment has appeared: this one may have grown before that.
			if r.later, err = r.hasLater(); err != nil {
				return nil, err
			}
			if !r.later {
				return nil, io.EOF
			}
			continue
		}
		damage := &DamageError{Path: r.segment.Path, Offset: r.base, Bytes: piece}
		r.file.Close()
		r.file = nil
		if piece > 0 {
			return nil, damage
		}
	}
}

// Segment is the one that the last line came from.
func (r *Reader) Segment() stream.Segment { return r.segment }

// Position is where the last line begins.
func (r *Reader) Position() stream.Position {
	return stream.Position{Segment: r.segment.Number, Offset: r.start}
}

// Behind is where the next line begins, if there is one in this segment: where another Reader goes on.
func (r *Reader) Behind() stream.Position {
	if r.segment.Number < r.from.Segment { // nothing was opened yet
		return r.from
	}
	return stream.Position{Segment: r.segment.Number, Offset: r.base + int64(r.used)}
}

// Close closes the segment that is open.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// fill reads more; io.EOF if there is no more now.
func (r *Reader) fill() error {
	if r.used > 0 {
		n := copy(r.buf, r.buf[r.used:])
		r.base, r.buf, r.used = r.base+int64(r.used), r.buf[:n], 0
	}
	if len(r.buf) == cap(r.buf) {
		r.buf = append(make([]byte, 0, 2*cap(r.buf)), r.buf...)
	}
	n, err := r.file.ReadAt(r.buf[len(r.buf):cap(r.buf)], r.base+int64(len(r.buf)))
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// skipLine passes over a line that is longer than any record.
func (r *Reader) skipLine() error {
	damage := &DamageError{Path: r.segment.Path, Offset: r.base + int64(r.used)}
	for {
		i := bytes.IndexByte(r.buf[r.used:], '\n')
		if i >= 0 {
			r.used += i + 1
			damage.Bytes = r.base + int64(r.used) - damage.Offset
			return damage
		}
		r.used = len(r.buf)
		if err := r.fill(); err != nil {
			damage.Bytes = r.base + int64(r.used) - damage.Offset
			if !errors.Is(err, io.EOF) {
				return r.giveUp(err)
			}
			return damage
		}
	}
}

// giveUp leaves a segment that cannot be read on.
func (r *Reader) giveUp(err error) error {
	damage := &DamageError{Path: r.segment.Path, Offset: r.base + int64(len(r.buf)), Err: err}
	r.Close()
	return damage
}

// advance opens the next segment; io.EOF if there is none yet.
func (r *Reader) advance() error {
	next, later, err := r.following()
	if err != nil {
		return err
	}
	if next.Number == 0 {
		return io.EOF
	}
	r.segment = next // also if it cannot be opened: the next call goes on behind it
	file, err := Open(next.Path)
	if errors.Is(err, fs.ErrNotExist) { // retention was faster
		return r.advance()
	}
	if err != nil {
		return &DamageError{Path: next.Path, Err: err}
	}
	r.file, r.later, r.base, r.buf, r.used = file, later, 0, r.buf[:0], 0
	if next.Number == r.from.Segment {
		r.base = r.from.Offset
	}
	return nil
}

// following returns the segment behind the current one, if any, and whether there is one behind that.
func (r *Reader) following() (next stream.Segment, later bool, err error) {
	segments, err := stream.Segments(r.dir)
	if errors.Is(err, fs.ErrNotExist) { // the whole stream was removed
		return stream.Segment{}, false, nil
	}
	for i, s := range segments {
		if s.Number > r.segment.Number {
			return s, i+1 < len(segments), err
		}
	}
	return stream.Segment{}, false, err
}

func (r *Reader) hasLater() (bool, error) {
	next, _, err := r.following()
	return next.Number > 0, err
}
