// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"path/filepath"
	"sync"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// walk goes through the records of a stream in their order, beside the lines of its manifest.
type walk struct {
	*subject
	history *history
	out     *Stream
	heads   []point
	ahead   *Finding // of a torn line of the manifest

	in       *bufio.Reader
	listed   *segmentLines // nil: nothing is signed
	points   *points
	link     stream.Link // of the last record
	segment  int
	file     string // name of that segment
	offset   int64  // behind the last record
	skipped  uint64
	broken   bool // something was wrong with a record: what follows from its number and chain is not told again
	diverged bool // a place was found that has another chain than was signed
}

// buffers hold a record of any size each.
var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, audit.MaxRecord) }}

// run reads all segments. What is wrong with them is in the findings; the error is for files that cannot be read at all.
func (w *walk) run(segments []stream.Segment) error {
	w.in = buffers.Get().(*bufio.Reader)
	defer func() {
		w.in.Reset(nil)
		buffers.Put(w.in)
	}()
	if w.history.lines > 0 {
		file, err := fsys.OpenRegular(filepath.Join(w.dir, manifest.Name))
		if err != nil {
			return err
		}
		defer file.Close()
		w.listed = &segmentLines{lines: newLines(file, w.history)}
		w.points = &points{lines: newLines(file, w.history)}
	}
	if w.ahead != nil {
		w.tornManifest()
	}
	w.arrive()
	next := 1
	for i, s := range segments {
		w.missing(next, s.Number)
		next = s.Number + 1
		if err := w.read(s, i == len(segments)-1); err != nil {
			w.unreadable(filepath.Base(s.Path), err)
			w.broken = true
		}
		w.out.Segments++
	}
	w.out.Records, w.out.Chain = w.link.Seq, w.link.Chain
	return nil
}

// tornManifest: only a writer that has not closed the stream leaves half a line.
func (w *walk) tornManifest() {
	if w.history.closed != nil && !w.wentOn(w.history) {
		w.ahead.Severity, w.ahead.Code = Fault, ManifestChanged
	}
	w.add(*w.ahead)
}

// missing tells of the segments between two that are there. Where they were removed on purpose the chain goes on with what is signed of
// the last one of them.
func (w *walk) missing(from, to int) {
	for n := from; n < to; n++ {
		if !w.history.isRemoved(n) {
			w.add(Finding{Severity: Fault, Code: SegmentMissing, File: segmentFile(n), Message: fmt.Sprintf("segments %d to %d are not there", n, to-1)})
			return
		}
	}
	if from == to {
		return
	}
	w.add(Finding{Severity: Note, Code: Removed, File: manifest.RemovalsName, Message: fmt.Sprintf("segments %d to %d were removed on purpose", from, to-1)})
	if e := w.listed.of(to - 1); e != nil && e.Segment.Last > 0 {
		w.link = stream.Link{Seq: e.Segment.Last, Chain: e.Segment.After}
		w.skipped = w.link.Seq
		w.arrive()
	}
}

func segmentFile(n int) string { return fmt.Sprintf("%08d.ndjson", n) }

// read goes through one segment.
func (w *walk) read(s stream.Segment, last bool) error {
	file, err := segment.Open(s.Path)
	if errors.Is(err, seekable.ErrForm) {
		w.segment, w.file, w.offset = s.Number, filepath.Base(s.Path), 0
		w.damaged(err)
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	w.segment, w.file, w.offset = s.Number, filepath.Base(file.Name()), 0
	first := w.link.Seq + 1
	var line *manifest.Entry
	if w.listed != nil {
		line = w.listed.of(s.Number)
	}
	if file.Compressed() && !w.mayUnpack(file, line) {
		return nil
	}
	sum := sha256.New()
	var in io.Reader = io.NewSectionReader(file, 0, math.MaxInt64)
	if line != nil {
		in = io.TeeReader(in, sum)
	}
	w.in.Reset(in)
	faults := len(w.findings.list) + w.findings.left
	err = w.records(last)
	w.out.Bytes += w.offset
	if err == nil {
		err = file.Check()
	}
	if errors.Is(err, seekable.ErrForm) {
		w.damaged(err)
		return nil
	}
	if err != nil {
		return err
	}
	if line != nil && faults == len(w.findings.list)+w.findings.left {
		w.judgeSegment(line, first, sum)
	}
	return nil
}

// mayUnpack tells whether a compressed segment holds as many bytes as was signed, so that no more of it than that is ever unpacked. Of what
// nobody has signed for, package seekable has the bound.
func (w *walk) mayUnpack(file *segment.File, line *manifest.Entry) bool {
	size, err := file.Size()
	want := size
	switch c := w.history.closed; {
	case line != nil:
		want = line.Segment.Bytes
	case c != nil && c.At.Segment == w.segment:
		want = c.At.Offset
	}
	if err == nil && size != want {
		err = fmt.Errorf("it holds %d bytes, and %d were signed", size, want)
	}
	if err != nil {
		w.damaged(err)
	}
	return err == nil
}

// damaged tells of a compressed segment that cannot be read, or not on.
func (w *walk) damaged(err error) {
	w.broken = true
	w.add(Finding{Severity: Fault, Code: CompressedDamaged, File: w.file, Seq: w.link.Seq + 1, Message: err.Error()})
}

// judgeSegment holds a segment against its line in the manifest.
func (w *walk) judgeSegment(e *manifest.Entry, first uint64, sum hash.Hash) {
	c := e.Segment
	what := ""
	switch {
	case c.Bytes != w.offset:
		what = fmt.Sprintf("it has %d bytes, not %d", w.offset, c.Bytes)
	case c.Last != w.link.Seq || c.After != w.link.Chain:
		what = fmt.Sprintf("it ends with record %d and the chain %s, not with record %d and %s", w.link.Seq, w.link.Chain, c.Last, c.After)
	case c.First != 0 && c.First != first:
		what = fmt.Sprintf("it begins with record %d, not %d", first, c.First)
	case c.SHA256 != "" && c.SHA256 != hex.EncodeToString(sum.Sum(nil)):
		what = "its SHA-256 is another one"
	}
	if what != "" {
		w.add(Finding{Severity: Fault, Code: SegmentChanged, File: w.file, Line: e.Line, Seq: first,
			Message: fmt.Sprintf("it is not what line %d of the manifest says: %s", e.Line, what)})
	}
}

// records goes through the lines of a segment.
func (w *walk) records(last bool) error {
	for {
		line, err := w.in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			w.tail(int64(len(line)), last)
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			if err := w.skip(int64(len(line))); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if w.offset == 0 {
			w.judgeIdentity(line)
		}
		followed := w.follow(line)
		w.offset += int64(len(line))
		if followed {
			w.arrive()
		}
	}
}

// follow takes in the next record; false if the line is none.
func (w *walk) follow(line []byte) bool {
	next, err := w.link.Follow(line)
	fault := func(code Code, format string, args ...any) {
		w.broken = true
		w.add(Finding{Severity: Fault, Code: code, File: w.file, Offset: w.offset, Seq: next.Seq, Message: fmt.Sprintf(format, args...)})
	}
	was := w.link.Seq
	switch {
	case errors.Is(err, stream.ErrNoRecord):
		fault(NoRecord, "%d bytes behind record %d are no record", len(line), was)
		return false
	case errors.Is(err, stream.ErrNumber) && next.Seq > was:
		fault(RecordMissing, "records %d to %d are missing", was+1, next.Seq-1)
	case errors.Is(err, stream.ErrNumber):
		fault(RecordOrder, "record %d stands behind record %d", next.Seq, was)
	case err != nil:
		fault(RecordChanged, "record %d does not follow from the one before it: one of the two was changed", next.Seq)
	}
	w.link = next
	return true
}

// arrive holds the place behind the last record against all that is signed of it.
func (w *walk) arrive() {
	if w.points != nil {
		for p := w.points.peek(); p != nil && p.at.Seq <= w.link.Seq; p = w.points.peek() {
			w.compare(*p)
			w.points.pop()
		}
	}
	for len(w.heads) > 0 && w.heads[0].at.Seq <= w.link.Seq {
		w.compare(w.heads[0])
		w.heads = w.heads[1:]
	}
}

func (w *walk) compare(p point) {
	if p.at.Seq < w.skipped || p.at.Seq < w.link.Seq && w.broken || w.diverged {
		return
	}
	chain := w.link.Chain
	if w.link == (stream.Link{}) {
		chain = journal.Zero
	}
	here := p.at.Segment == w.segment && p.at.Offset == w.offset ||
		p.at.Segment > w.segment && p.at.Offset == 0 || // it had just gone on to the next one
		w.link.Seq == w.skipped // nothing of it is here any more
	switch {
	case p.at.Seq != w.link.Seq:
		w.disagree(p, "it names record %d behind record %d", p.at.Seq, w.link.Seq)
	case p.at.Chain != chain:
		w.disagree(p, "record %d has another chain than was signed: records up to it were changed, and chained anew", p.at.Seq)
	case !here:
		w.disagree(p, "record %d ends at offset %d of segment %d, and not at %d of %d", p.at.Seq, w.offset, w.segment, p.at.Offset, p.at.Segment)
	default:
		w.out.Signed = p.at.Seq
	}
}

// disagree tells of the first place only: all behind it follow from it.
func (w *walk) disagree(p point, format string, args ...any) {
	w.diverged, w.broken = true, true
	w.add(Finding{Severity: Fault, Code: Rewritten, File: p.file, Line: p.line, Offset: p.offset, Seq: p.at.Seq, Message: fmt.Sprintf(format, args...)})
}

// skip passes over a line that is longer than any record.
func (w *walk) skip(n int64) error {
	for {
		line, err := w.in.ReadSlice('\n')
		n += int64(len(line))
		if err == nil || errors.Is(err, io.EOF) {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	w.broken = true
	w.add(Finding{Severity: Fault, Code: NoRecord, File: w.file, Offset: w.offset, Message: fmt.Sprintf("%d bytes are no record", n)})
	w.offset += n
	return nil
}

// tail judges what stands behind the last newline of a segment.
func (w *walk) tail(n int64, last bool) {
	if n == 0 {
		return
	}
	x := Finding{Severity: Note, Code: TornTail, File: w.file, Offset: w.offset, Seq: w.link.Seq + 1,
		Message: fmt.Sprintf("%d bytes at the end are no whole record", n)}
	if !last || w.history.closed != nil && !w.wentOn(w.history) {
		x.Severity, x.Code = Fault, NoRecord
		w.broken = true
	}
	w.add(x)
}

// judgeIdentity: the first record of each segment is one of this stream.
func (w *walk) judgeIdentity(line []byte) {
	r, err := record.Parse(line)
	if err != nil {
		return // the chain says so
	}
	id := r.Identity
	name := stream.PodName(id.Namespace, id.Pod, id.PodUID) + "/" + stream.ContainerName(id.Container)
	want := w.history.name
	if want == "" {
		want = w.out.Stream
	}
	if want == "" { // unsigned, and copied: its first record says whose it is
		w.out.Stream, want = name, name
	}
	if want != name {
		w.broken = true
		w.add(Finding{Severity: Fault, Code: RecordForeign, File: w.file, Seq: r.Seq,
			Message: fmt.Sprintf("it is a record of the stream %s, in a segment of %s", name, want)})
	}
}

// last is the file where the stream ends.
func (w *walk) last() string {
	if w.segment == 0 {
		return segmentFile(1)
	}
	return w.file
}
