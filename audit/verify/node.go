// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// Ledger is what was found of a node's ledger.
type Ledger struct {
	Path     string    `json:"path"` // empty: there is none
	Lines    uint64    `json:"lines"`
	Streams  int       `json:"streams"` // that it tells of, but for those that were removed on purpose
	Findings []Finding `json:"findings"`
}

// Verdict is the gravest of the findings, Note if there is none.
func (l *Ledger) Verdict() Severity { return verdict(l.Findings) }

// told is what the ledger says of one stream.
type told struct {
	stream     string
	begin, end mark // the newest of each; zero: none
	found      bool // the stream is there
}

// mark is a line of the ledger, and the line of the manifest that it repeats.
type mark struct {
	line, manifest uint64
	hash           string
}

// book is a ledger as it was read.
type book struct {
	lines    uint64
	damaged  bool
	streams  map[string]*told  // by id
	removed  map[string]uint64 // by id of a stream that was removed on purpose: the line that says so
	findings findings
	there    bool
}

// Node verifies the streams below root that match, with the node's ledger, and gives each to emit as it is done. It may be a copy of a
// node's directory. An error of emit ends it.
func Node(root string, keys signature.Ring, match func(stream.Stream) bool, emit func(*Stream) error) (*Ledger, error) {
	// The ledger first: whatever it tells of by now must be there later.
	b, err := readLedger(root, keys)
	if err != nil {
		return nil, err
	}
	all, err := stream.List(root)
	if err != nil {
		return nil, err
	}
	var late []*Stream // that say more of the ledger than was read
	for _, s := range all {
		if !match(s) {
			continue
		}
		v, err := verify(&subject{dir: s.Path, name: s.Pod + "/" + s.Container, keys: keys, told: b.streams})
		if errors.Is(err, fs.ErrNotExist) { // it is being removed; the ledger knows
			continue
		}
		if err != nil {
			return nil, err
		}
		if t := b.streams[v.ID]; t != nil {
			t.found = true
		}
		if v.ledger > 0 && !b.knows(v) {
			late = append(late, v)
			continue
		}
		if err := emit(v); err != nil {
			return nil, err
		}
	}
	if err := b.settle(root, keys, late, emit); err != nil {
		return nil, err
	}
	if err := b.missing(root, keys, match); err != nil {
		return nil, err
	}
	return b.report(root), nil
}

// readLedger reads the ledger in root, if there is one.
func readLedger(root string, keys signature.Ring) (*book, error) {
	b := &book{streams: map[string]*told{}, removed: map[string]uint64{}}
	file, err := fsys.OpenRegular(filepath.Join(root, ledger.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b.there = true
	if len(keys) == 0 {
		b.damaged = true
		b.findings.add(Finding{Severity: Unjudged, Code: NoKey, File: ledger.Name, Message: "no public key to verify with"})
		return b, nil
	}
	r := journal.NewReader(file, ledger.Context, keys)
	for {
		var e ledger.Entry
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		var wrong *journal.Fault
		if errors.As(err, &wrong) {
			b.damaged = true
			b.findings.add(journalFinding(ledger.Name, LedgerChanged, wrong))
			break
		}
		if err != nil {
			return nil, err
		}
		b.take(&e)
	}
	if n := r.Torn(); n > 0 {
		b.findings.add(Finding{Severity: Note, Code: TornTail, File: ledger.Name, Offset: r.Offset(), Message: fmt.Sprintf("%d bytes at the end are no whole line", n)})
	}
	return b, nil
}

func (b *book) take(e *ledger.Entry) {
	b.lines = e.Line
	t := b.streams[e.ID]
	if t == nil {
		t = &told{stream: e.Stream}
		b.streams[e.ID] = t
	}
	m := mark{e.Line, e.Manifest, e.Hash}
	switch e.Kind {
	case ledger.Begin: // behind its removal: retention was killed before it was gone, and a writer has gone on with it
		t.begin = m
		delete(b.removed, e.ID)
	case ledger.End:
		t.end = m
		delete(b.removed, e.ID)
	case ledger.Removed:
		delete(b.streams, e.ID)
		b.removed[e.ID] = e.Line
	default:
		b.findings.add(Finding{Severity: Unjudged, Code: NewerVersion, File: ledger.Name, Line: e.Line, Message: fmt.Sprintf("kind %q is of a newer version", e.Kind)})
	}
}

// knows tells whether the ledger has the line that the stream's head names.
func (b *book) knows(s *Stream) bool {
	if line := b.removed[s.ID]; line != 0 {
		s.Findings = append(s.Findings, Finding{Severity: Note, Code: Removed, File: ledger.Name, Line: line,
			Message: fmt.Sprintf("line %d of the ledger says that the stream is removed: it is about to be, or was put back", line)})
		return s.ledger < line
	}
	t := b.streams[s.ID]
	return t != nil && s.ledger <= max(t.begin.line, t.end.line)
}

// settle judges the streams whose heads name lines that were not there when the ledger was read, by what it says now.
func (b *book) settle(root string, keys signature.Ring, late []*Stream, emit func(*Stream) error) error {
	if len(late) == 0 {
		return nil
	}
	now, err := readLedger(root, keys)
	if err != nil {
		return err
	}
	for _, s := range late {
		if t := now.streams[s.ID]; t != nil {
			t.found = true
		}
		switch {
		case now.knows(s), now.damaged: // what a damaged one would say is told with its damage
		case !now.there:
			s.Findings = append(s.Findings, Finding{Severity: Fault, Code: LedgerMissing, File: ledger.Name, Line: s.ledger,
				Message: fmt.Sprintf("the head names line %d of the ledger, and there is no ledger", s.ledger)})
		case s.ledger > now.lines:
			s.Findings = append(s.Findings, Finding{Severity: Fault, Code: LedgerTruncated, File: ledger.Name, Line: s.ledger,
				Message: fmt.Sprintf("the head names line %d of the ledger, which has %d", s.ledger, now.lines)})
		default:
			s.Findings = append(s.Findings, Finding{Severity: Fault, Code: StreamUntold, File: ledger.Name, Line: s.ledger,
				Message: fmt.Sprintf("the head names line %d of the ledger, which is of another stream", s.ledger)})
		}
		if err := emit(s); err != nil {
			return err
		}
	}
	return nil
}

// missing tells of the streams that are not there any more.
func (b *book) missing(root string, keys signature.Ring, match func(stream.Stream) bool) error {
	gone := func(t *told) bool {
		pod, container, _ := strings.Cut(t.stream, "/")
		return !t.found && match(stream.Stream{Pod: pod, Container: container})
	}
	if slices.ContainsFunc(slices.Collect(maps.Values(b.streams)), gone) { // it may have been removed since the ledger was read
		now, err := readLedger(root, keys)
		if err != nil {
			return err
		}
		maps.DeleteFunc(b.streams, func(id string, _ *told) bool { return now.removed[id] != 0 })
	}
	ids := slices.SortedFunc(maps.Keys(b.streams), func(a, c string) int {
		return strings.Compare(b.streams[a].stream+a, b.streams[c].stream+c)
	})
	for _, id := range ids {
		t := b.streams[id]
		if !gone(t) {
			continue
		}
		line := max(t.begin.line, t.end.line)
		b.findings.add(Finding{Severity: Fault, Code: StreamGone, File: ledger.Name, Line: line,
			Message: fmt.Sprintf("the stream %s (%s), of which line %d tells, is not there", t.stream, id, line)})
	}
	return nil
}

func (b *book) report(root string) *Ledger {
	l := &Ledger{Lines: b.lines, Streams: len(b.streams), Findings: b.findings.list}
	if b.there {
		l.Path = filepath.Join(root, ledger.Name)
	}
	if n := b.findings.left; n > 0 {
		l.Findings = append(l.Findings, Finding{Severity: Fault, Code: StreamGone, File: ledger.Name, Message: fmt.Sprintf("and %d findings more", n)})
	}
	if l.Findings == nil {
		l.Findings = []Finding{}
	}
	return l
}

// ledgerNames tells whether the ledger names a line of the manifest.
func (s *subject) ledgerNames(id string, line uint64) bool {
	t := s.told[id]
	return t != nil && (t.begin.manifest == line || t.end.manifest == line)
}

// judgeTold holds the manifest against what the ledger says of it.
func (s *subject) judgeTold(h *history) {
	t := s.told[h.id]
	if t == nil || h.damaged {
		return
	}
	for _, m := range []mark{t.begin, t.end} {
		if m.line > 0 && h.hashes[m.manifest] != m.hash {
			s.add(Finding{Severity: Fault, Code: StreamRolledBack, File: ledger.Name, Line: m.line,
				Message: fmt.Sprintf("line %d of the ledger tells of line %d of the manifest, which has %d lines, or another one there", m.line, m.manifest, h.lines)})
		}
	}
	if t.end.line > t.begin.line && s.behindEnd(h, t) {
		s.add(Finding{Severity: Fault, Code: HeadOld, File: "head",
			Message: fmt.Sprintf("line %d of the ledger tells that the writer had closed the stream, and the head is older than that", t.end.line)})
	}
}

// behindEnd tells whether the head is older than the end that the ledger tells of: a writer tells the ledger after it has signed the end.
func (s *subject) behindEnd(h *history, t *told) bool {
	return s.headLines > 0 && s.headLines < t.end.manifest && h.lines >= t.end.manifest
}
