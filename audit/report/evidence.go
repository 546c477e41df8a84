// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strconv"

	"metsuke.dev/metsuke/audit/frequent"
	"metsuke.dev/metsuke/audit/stats"
	"metsuke.dev/metsuke/audit/verify"
)

// maxFindings bounds the findings of a stream that a page has rows for.
const maxFindings = 25

// evidence is what verification has found.
type evidence struct {
	Word, Class string
	Says        string
	At          *Moment
	Keys        []fingerprint
	MoreKeys    int
	OwnKey      bool
	Streams     []judgement
}

// fingerprint is that of a key.
type fingerprint struct{ Short, Whole Text }

// judgement is what was found of a stream, or of the ledger.
type judgement struct {
	Name        Text
	Word, Class string
	Facts       string
	Findings    []finding
	Left        string
}

type finding struct {
	Severity, Code Text
	Class          string
	Where          Text
	Message        Text
	Means          string
}

func (r *Report) evidence(a About, s *scale) evidence {
	e := evidence{At: s.day(nanos(a.At)), OwnKey: a.OwnKey}
	for _, k := range a.Keys[:min(len(a.Keys), maxNamed)] {
		e.Keys = append(e.Keys, fingerprint{short(k), text(k)})
	}
	e.MoreKeys = len(a.Keys) - len(e.Keys)
	worst := verify.Note
	note := func(x verify.Severity) {
		if x == verify.Fault || x == verify.Unjudged && worst == verify.Note {
			worst = x
		}
	}
	if len(r.containers) == 0 || r.unknown > 0 {
		note(verify.Unjudged)
	}
	for _, c := range r.containers {
		j := r.judge(c, s)
		e.Streams = append(e.Streams, j)
		if c.evidence == nil {
			note(verify.Unjudged)
			continue
		}
		note(c.evidence.Verdict())
	}
	for _, severity := range []verify.Severity{verify.Fault, verify.Unjudged, verify.Note} {
		if n := r.others[severity]; n > 0 {
			j := judgement{Name: Text{S: many(n, "further stream")}, Facts: "of containers that are not in this page; metsuke audit verify tells of each"}
			j.Word, j.Class = judged(severity)
			e.Streams = append(e.Streams, j)
			note(severity)
		}
	}
	if l := r.ledger; l != nil && (l.Path != "" || len(l.Findings) > 0) {
		j := judgement{Name: Text{S: "the node's ledger"}, Facts: many(l.Lines, "line") + ", " + many(uint64(l.Streams), "stream")}
		j.Word, j.Class = judged(l.Verdict())
		j.take(l.Findings, 0)
		e.Streams = append(e.Streams, j)
		note(l.Verdict())
	}
	e.Word, e.Class = judged(worst)
	switch worst {
	case verify.Fault:
		e.Says = "Something was done to the evidence, or happened to it: see what was found."
	case verify.Unjudged:
		e.Says = "No fault was found, but not all of it can be judged: see what was found."
	default:
		e.Says = "Nothing that was signed for is missing, changed, reordered or cut off."
	}
	return e
}

func (r *Report) judge(c *container, s *scale) judgement {
	j := judgement{Name: r.named(c.number), Word: "undecided", Class: "open", Facts: "it was not verified: it came later"}
	v := c.evidence
	if v == nil {
		return j
	}
	j.Word, j.Class = judged(v.Verdict())
	j.Facts = text(string(v.State)).S + ", " + many(v.Records, "record")
	if v.Signed > 0 {
		j.Facts += ", signed up to record " + number(v.Signed)
		if v.SignedAt != nil {
			j.Facts += " at " + s.day(nanos(*v.SignedAt)).Short + " UTC"
		}
	}
	if c.seq > v.Records {
		j.Facts += "; records " + number(v.Records+1) + " to " + number(c.seq) + " came after that"
	}
	j.take(v.Findings, v.LeftOut)
	return j
}

// take takes findings in. They hold names from files, which are hostile.
func (j *judgement) take(list []verify.Finding, leftOut int) {
	for _, x := range list[:min(len(list), maxFindings)] {
		where := x.File
		if x.Line > 0 {
			where += ", line " + strconv.FormatUint(x.Line, 10)
		}
		if x.Offset > 0 {
			where += ", offset " + strconv.FormatInt(x.Offset, 10)
		}
		if x.Seq > 0 {
			where += ", record " + strconv.FormatUint(x.Seq, 10)
		}
		f := finding{Severity: text(string(x.Severity)), Code: text(string(x.Code)), Where: text(where), Message: text(x.Message)}
		_, f.Class = judged(x.Severity)
		for _, term := range verify.Codes() {
			if term.Name == string(x.Code) {
				f.Means = plain(term.Doc)
			}
		}
		j.Findings = append(j.Findings, f)
	}
	if n := len(list) - len(j.Findings) + leftOut; n > 0 {
		j.Left = "and " + strconv.Itoa(n) + " findings more; metsuke audit verify says them"
	}
}

func (r *Report) tiles(sums *stats.Page) []tile {
	var allowed, refused uint64
	for _, c := range sums.Calls {
		allowed += c.Allowed
		refused += c.Denied + c.Killed
	}
	var limits uint64
	for _, l := range sums.Limits {
		limits += l.Count
	}
	sessions, gaps := uint64(len(r.sessions.kept))+r.sessions.more, uint64(len(r.gaps.kept))+r.gaps.more
	return []tile{
		{number(refused), "denied or killed", "#denials", distinct(&r.denials) + " different", refused > 0},
		{number(allowed), "allowed " + noun(allowed, "call"), "#classes", many(sums.Records, "record"), false},
		{r.addresses(), "addresses", "#addresses", "", false},
		{distinct(&r.removed), "files deleted or renamed", "#removed", "", false},
		{distinct(&r.written), "files written", "#files", "", false},
		{number(sessions), "exec " + noun(sessions, "session"), "#sessions", "", false},
		{number(sums.OOMs), "killed for want of memory", "#pressure", many(limits, "limit") + " lowered", sums.OOMs > 0},
		{number(gaps), noun(gaps, "gap"), "#gaps", "", gaps > 0},
	}
}

// addresses says how many addresses there are, whatever was done with each.
func (r *Report) addresses() string {
	have := map[string]bool{}
	for _, item := range r.destinations.Items() {
		have[item.Value.address] = true
	}
	n := number(uint64(len(have)))
	if r.destinations.Full() {
		return "at least " + n
	}
	return n
}

// distinct says how many different facts there are.
func distinct[V any](t *frequent.Table[V]) string {
	n := number(uint64(len(t.Items())))
	if t.Full() {
		return "over " + n
	}
	return n
}
