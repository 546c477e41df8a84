// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"io"
	"os"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// history is what the lines of a manifest say, up to the first one that is wrong.
type history struct {
	id       string
	name     string // of the stream: <pod>/<container>
	lines    uint64
	size     int64             // bytes of these lines
	hashes   map[uint64]string // of the lines that somebody names
	openings int
	first    manifest.Point    // where the first writer began
	closed   *manifest.Closing // by the last writer; nil: the stream is open
	counters int               // bytes of the file of counters, as that writer left it
	floor    uint64            // records that were signed for, and must be there
	cuts     []cut
	removed  []span
	damaged  bool // there are lines behind these
}

// cut is where a writer found fewer records than had been signed for: what lines before it say of records behind seq is void.
type cut struct{ line, seq uint64 }

func (h *history) void(line, seq uint64) bool {
	for _, c := range h.cuts {
		if c.line > line && seq > c.seq {
			return true
		}
	}
	return false
}

// readHistory reads the manifest once, checking each line. named are the lines whose hashes are wanted; what the ledger names is added
// when the stream's id is known.
func (s *subject) readHistory(file *os.File, named map[uint64]bool) (*history, error) {
	h := &history{hashes: map[uint64]string{}}
	r := journal.NewReader(file, manifest.Context, s.keys)
	for {
		var e manifest.Entry
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		var wrong *journal.Fault
		if errors.As(err, &wrong) {
			h.damaged = true
			s.lineFault(ManifestChanged, wrong)
			break
		}
		if err != nil {
			return nil, err
		}
		if err := s.take(h, &e); err != nil {
			h.damaged = true
			s.lineFault(ManifestChanged, &journal.Fault{Line: e.Line, Offset: r.Begin(), Err: err})
			break
		}
		h.lines, h.size = r.Line(), r.Offset()
		if named[e.Line] || s.ledgerNames(h.id, e.Line) {
			h.hashes[e.Line] = r.Hash()
		}
	}
	if n := r.Torn(); n > 0 {
		s.tornLine = &Finding{
			Severity: Note, Code: TornTail, File: manifest.Name, Offset: h.size,
			Message: fmt.Sprintf("%d bytes at the end are no whole line", n),
		}
	}
	return h, nil
}

// take adds a line to the history.
func (s *subject) take(h *history, e *manifest.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	switch {
	case h.lines == 0 && e.Begin == nil:
		return errors.New("the first line is not of kind begin")
	case h.lines == 0:
		h.id, h.name, h.first = e.ID, e.Begin.Stream, e.Begin.At
	case e.ID != h.id || e.Begin != nil && e.Begin.Stream != h.name:
		return fmt.Errorf("it is a line of another stream: %s", e.ID)
	}
	switch {
	case e.Begin != nil:
		h.openings++
		h.closed = nil
		s.takeBegin(h, e)
	case e.Close != nil:
		h.closed, h.counters = e.Close, stream.CountersSize(e.Boot != "")
		h.floor = max(h.floor, e.Close.At.Seq)
	case e.Segment != nil:
		h.floor = max(h.floor, e.Segment.Last)
	}
	return nil
}

func (s *subject) takeBegin(h *history, e *manifest.Entry) {
	b := e.Begin
	had := h.floor
	if b.Head != nil {
		had = max(had, b.Head.Seq)
	}
	if b.Broken {
		s.add(Finding{Severity: Fault, Code: BrokenBefore, File: manifest.Name, Line: e.Line,
			Message: "the writer that began here could not read what the one before had signed last"})
	}
	if had > b.At.Seq {
		h.cuts = append(h.cuts, cut{e.Line, b.At.Seq})
		s.add(Finding{Severity: Fault, Code: SignedMissing, File: manifest.Name, Line: e.Line, Seq: b.At.Seq + 1,
			Message: fmt.Sprintf("%d records that had been signed for, behind record %d, were gone when the writer that began here opened the stream", had-b.At.Seq, b.At.Seq)})
	}
	h.floor = b.At.Seq
}

// lineFault tells of a line of the manifest that is wrong.
func (s *subject) lineFault(code Code, f *journal.Fault) {
	s.add(journalFinding(manifest.Name, code, f))
}

// journalFinding says what is wrong with a line of a manifest or a ledger.
func journalFinding(file string, code Code, f *journal.Fault) Finding {
	x := Finding{Severity: Fault, Code: code, File: file, Line: f.Line, Offset: f.Offset, Message: f.Err.Error()}
	var unknown *signature.UnknownKeyError
	switch {
	case errors.As(f.Err, &unknown):
		x.Code = UnknownKey
	case errors.Is(f.Err, signature.ErrSignature):
		x.Code = BadSignature
	case errors.Is(f.Err, journal.ErrVersion):
		x.Severity, x.Code = Unjudged, NewerVersion
	}
	return x
}

// lines goes through the lines of a manifest that readHistory has found good, once more.
type lines struct {
	h *history
	r *journal.Reader
}

func newLines(file *os.File, h *history) *lines {
	return &lines{h, journal.NewTrusted(io.NewSectionReader(file, 0, h.size))}
}

// next returns the next line; nil at the end.
func (l *lines) next() *manifest.Entry {
	var e manifest.Entry
	if l.r.Next(&e) != nil { // it was good before: the file is being replaced, which its head shows
		return nil
	}
	return &e
}

// segmentLines finds the lines of segments, in the order of their numbers.
type segmentLines struct {
	lines *lines
	ahead *manifest.Entry
}

// of returns the line of a segment; nil if there is none. Numbers must rise from call to call.
func (l *segmentLines) of(number int) *manifest.Entry {
	for {
		if l.ahead == nil {
			if l.ahead = l.lines.next(); l.ahead == nil {
				return nil
			}
		}
		c := l.ahead.Segment
		switch {
		case c == nil || c.Number < number || l.lines.h.void(l.ahead.Line, c.Last):
			l.ahead = nil
		case c.Number == number:
			return l.ahead
		default:
			return nil
		}
	}
}

// point is a place in the stream that was signed for.
type point struct {
	at     manifest.Point
	file   string
	line   uint64 // of the manifest
	offset int64
}

// points finds the places that the lines of openings and closings sign for, in their order.
type points struct {
	lines *lines
	ahead []point
}

// peek returns the next place; nil at the end.
func (p *points) peek() *point {
	for len(p.ahead) == 0 {
		e := p.lines.next()
		if e == nil {
			return nil
		}
		sign := func(at *manifest.Point, line uint64) {
			if !p.lines.h.void(line, at.Seq) {
				p.ahead = append(p.ahead, point{*at, manifest.Name, e.Line, p.lines.r.Begin()})
			}
		}
		switch {
		case e.Begin != nil:
			if e.Begin.Head != nil {
				sign(e.Begin.Head, e.Line-1) // it is older than the line
			}
			sign(&e.Begin.At, e.Line)
		case e.Close != nil:
			sign(&e.Close.At, e.Line)
		}
	}
	return &p.ahead[0]
}

func (p *points) pop() { p.ahead = p.ahead[1:] }
