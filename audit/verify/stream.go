// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// State says what became of a stream's last writer.
type State string

// The states.
const (
	Ended    State = "ended"    // it has closed the stream behind an end record: the container was deleted
	Closed   State = "closed"   // it has closed the stream without one: nobody saw the container's end
	Open     State = "open"     // it has not closed the stream: it runs, or was killed
	Unsigned State = "unsigned" // nothing is signed, or by a key that is not known
)

// Stream is what was found of one stream.
type Stream struct {
	Path     string     `json:"path"`
	Stream   string     `json:"stream"` // <namespace>_<pod>_<uid>/<container>, as signed; unsigned, as its records or its directory say
	ID       string     `json:"id"`
	State    State      `json:"state"`
	Records  uint64     `json:"records"`  // number of the last one
	Chain    string     `json:"chain"`    // that record's: to compare with one that was kept elsewhere
	Signed   uint64     `json:"signed"`   // number up to which records are proven
	SignedAt *time.Time `json:"signedAt"` // when that was signed; null: not known
	Segments int        `json:"segments"`
	Bytes    int64      `json:"bytes"`
	Openings int        `json:"openings"` // by writers: instances of the container, and clean-ups
	Findings []Finding  `json:"findings"`
	LeftOut  int        `json:"leftOut"` // further findings

	ledger uint64 // line of the ledger that the head names
}

// Verdict is the gravest of the findings: Fault, Unjudged, or Note for a stream that is proven.
func (s *Stream) Verdict() Severity { return verdict(s.Findings) }

func verdict(list []Finding) Severity {
	if w := worst(list); w != "" {
		return w
	}
	return Note
}

// subject is a stream that is being verified.
type subject struct {
	dir      string
	name     string // that it must have; empty: any
	keys     signature.Ring
	told     map[string]*told // by the ledger, by id; nil: there is no ledger here
	findings findings

	head      uint64   // number of the newest head, as it was read first
	headLines uint64   // of the manifest, that the newest head names; 0: there is no head
	tornLine  *Finding // what stands behind the manifest's last newline
}

func (s *subject) add(x Finding) { s.findings.add(x) }

func (s *subject) unreadable(file string, err error) {
	s.add(Finding{Severity: Fault, Code: Unreadable, File: file, Message: err.Error()})
}

// retries is how often a stream is read again that was written meanwhile, if what seems wrong can come from that.
const retries = 10

// fleeting are the faults that a stream can seem to have because its files were not read at the same moment.
var fleeting = []Code{RecordUnsigned, SegmentExtra, CountersChanged, NoRecord, ManifestChanged, BadSignature, HeadChanged, HeadOld, HeadMissing}

// Dir verifies the stream in one directory, which may be a copy. It cannot tell whether the stream is an earlier copy of one that has
// gone on: Node can, with the ledger. The error is for a directory that is none.
func Dir(dir string, keys signature.Ring) (*Stream, error) {
	return verify(&subject{dir: dir, keys: keys})
}

func verify(s *subject) (*Stream, error) {
	for n := 0; ; n++ {
		once := *s
		before, there := once.newestHead(), once.filesNow()
		out, err := once.run()
		if err != nil || n == retries || out.Verdict() != Fault {
			return out, err
		}
		if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
			return nil, err
		}
		wentOn := out.mayPass() && s.newestHead().Number != before.Number
		if !wentOn && !there.retained(s.filesNow()) {
			return out, nil
		}
	}
}

// mayPass tells whether there are faults, all of them fleeting.
func (s *Stream) mayPass() bool {
	return s.Verdict() == Fault && !slices.ContainsFunc(s.Findings, func(x Finding) bool {
		return x.Severity == Fault && !slices.Contains(fleeting, x.Code)
	})
}

// wentOn tells whether a writer has signed the stream anew since the head was read: then what stands behind the place where it was closed is
// that writer's.
func (s *subject) wentOn(h *history) bool {
	file, err := fsys.OpenRegular(filepath.Join(s.dir, manifest.HeadName))
	if err != nil {
		return false
	}
	defer file.Close()
	heads, errs := manifest.ReadHeads(file, s.keys)
	now := manifest.Newest(heads)
	return now != nil && errs == [2]error{} && now.ID == h.id && now.Number > s.head
}

// newestHead is the newest head as it is now, whoever has signed it; zero if there is none.
func (s *subject) newestHead() manifest.Head {
	file, err := fsys.OpenRegular(filepath.Join(s.dir, manifest.HeadName))
	if err != nil {
		return manifest.Head{}
	}
	defer file.Close()
	heads, _ := manifest.ReadHeads(file, nil)
	if h := manifest.Newest(heads); h != nil {
		return *h
	}
	return manifest.Head{}
}

// run verifies once. It reads first what is written last, so that a stream that goes on meanwhile is only ever ahead.
func (s *subject) run() (*Stream, error) {
	out := &Stream{Path: s.dir, State: Unsigned, Stream: s.name}
	heads, headThere := s.readHead()
	if newest := manifest.Newest(heads); newest != nil {
		s.head = newest.Number
	}
	h, err := s.readManifest(heads, headThere)
	if err != nil {
		return nil, err
	}
	segments, err := stream.Segments(s.dir)
	if err != nil {
		return nil, err
	}
	s.readRemovals(h)
	w := &walk{subject: s, history: h, out: out, heads: headPoints(heads, h), ahead: s.tornLine}
	if err := w.run(segments); err != nil {
		return nil, err
	}
	s.judgeEnd(w, heads, segments)
	out.Findings, out.LeftOut = s.findings.list, s.findings.left
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	return out, nil
}

// readManifest reads the manifest, if there is one, and holds the head and the ledger against it. The history is empty if nothing is signed.
func (s *subject) readManifest(heads [2]*manifest.Head, headThere bool) (*history, error) {
	none := &history{}
	file, err := fsys.OpenRegular(filepath.Join(s.dir, manifest.Name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && headThere:
		s.add(Finding{Severity: Fault, Code: ManifestMissing, File: manifest.Name, Message: "the stream has a head and no manifest"})
		return none, nil
	case errors.Is(err, fs.ErrNotExist):
		s.add(Finding{Severity: Unjudged, Code: NotSigned, File: manifest.Name, Message: "chained, not signed: the stream has no manifest"})
		return none, nil
	case err != nil:
		s.unreadable(manifest.Name, err)
		return none, nil
	}
	defer file.Close()
	if len(s.keys) == 0 {
		s.add(Finding{Severity: Unjudged, Code: NoKey, File: manifest.Name, Message: "no public key to verify with"})
		s.findings.list = without(s.findings.list, UnknownKey)
		return none, nil
	}
	named := map[uint64]bool{}
	for _, head := range heads {
		if head != nil {
			named[head.Lines] = true
		}
	}
	h, err := s.readHistory(file, named)
	if err != nil {
		s.unreadable(manifest.Name, err)
		return none, nil
	}
	switch {
	case h.lines == 0 && !h.damaged && !headThere: // killed before its first line
		s.add(Finding{Severity: Unjudged, Code: NotSigned, File: manifest.Name, Message: "the manifest is empty"})
	case h.lines == 0 && !h.damaged:
		s.add(Finding{Severity: Fault, Code: ManifestTruncated, File: manifest.Name, Message: "the manifest is empty, and the stream has a head"})
	case !headThere && h.lines == 1:
		s.add(Finding{Severity: Note, Code: WriterKilled, File: manifest.HeadName, Message: "there is no head, and one line in the manifest"})
	case !headThere && !h.damaged:
		s.add(Finding{Severity: Fault, Code: HeadMissing, File: manifest.HeadName, Message: "the stream has a manifest and no head"})
	}
	if newest := manifest.Newest(heads); newest != nil {
		s.headLines = newest.Lines
		// A writer may have added lines since the head was read, each of which it has signed with another head.
		if now := s.newestHead(); now.Number > newest.Number {
			s.headLines = now.Lines
		}
	}
	if h.lines > 0 {
		s.judgeHead(heads, h)
		s.judgeName(h)
		s.judgeTold(h)
	}
	return h, nil
}

func without(list []Finding, code Code) (out []Finding) {
	for _, x := range list {
		if x.Code != code {
			out = append(out, x)
		}
	}
	return out
}

// judgeName: below a root of streams, a directory has the name of its stream.
func (s *subject) judgeName(h *history) {
	if s.name != "" && s.name != h.name {
		s.add(Finding{Severity: Fault, Code: StreamMoved, File: manifest.Name, Line: 1,
			Message: fmt.Sprintf("it is the stream %s, in the directory of %s", h.name, s.name)})
	}
}

// judgeEnd says what is wrong with the end of the stream, once it was read.
func (s *subject) judgeEnd(w *walk, heads [2]*manifest.Head, segments []stream.Segment) {
	out, h := w.out, w.history
	out.Openings = h.openings
	if h.lines == 0 {
		return
	}
	out.ID, out.Stream, out.State = h.id, h.name, Open
	floor := h.floor
	for _, head := range heads {
		if head != nil && head.ID == h.id && !h.void(head.Lines, head.At.Seq) {
			floor = max(floor, head.At.Seq)
		}
	}
	if newest := manifest.Newest(heads); newest != nil && newest.ID == h.id {
		out.ledger = newest.Ledger
		if at := newest.Time; newest.At.Seq == out.Signed {
			out.SignedAt = &at
		}
	}
	if out.Records < floor {
		s.add(Finding{Severity: Fault, Code: Truncated, File: w.last(), Offset: w.offset, Seq: out.Records + 1,
			Message: fmt.Sprintf("the stream ends with record %d, and was signed up to record %d: %d records are missing", out.Records, floor, floor-out.Records)})
	}
	if h.first.Seq > 0 {
		s.add(Finding{Severity: Note, Code: SignedLate, File: manifest.Name, Line: 1, Seq: h.first.Seq,
			Message: fmt.Sprintf("records up to %d were there before the manifest", h.first.Seq)})
	}
	if h.closed != nil && !s.wentOn(h) {
		s.judgeClosed(w, segments)
		return
	}
	if n := out.Records - min(out.Records, out.Signed); n > 0 && !w.broken {
		s.add(Finding{Severity: Note, Code: NotSignedYet, File: w.last(), Seq: out.Signed + 1,
			Message: fmt.Sprintf("the last %d records have no signature over them yet", n)})
	}
}

// judgeClosed: behind a stream that was closed there is nothing.
func (s *subject) judgeClosed(w *walk, segments []stream.Segment) {
	out, c := w.out, w.history.closed
	if out.State = Closed; c.End {
		out.State = Ended
	}
	s.judgeCounters(c.Folded, w.history.counters)
	if n := len(segments); n > 0 && segments[n-1].Number > c.At.Segment {
		s.add(Finding{Severity: Fault, Code: SegmentExtra, File: filepath.Base(segments[n-1].Path),
			Message: fmt.Sprintf("the stream was closed in segment %d", c.At.Segment)})
	}
	if out.Records > c.At.Seq && !w.broken {
		s.add(Finding{Severity: Fault, Code: RecordUnsigned, File: w.last(), Seq: c.At.Seq + 1,
			Message: fmt.Sprintf("%d records stand behind record %d, with which the stream was closed", out.Records-c.At.Seq, c.At.Seq)})
	}
}
