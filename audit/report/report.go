// SPDX-License-Identifier: Apache-2.0

// Package report makes of a pod's records a page to look at: HTML that needs nothing from outside and runs nothing but what this package
// brings. It takes constant memory, whatever and however many the records are; the page says what it leaves out.
package report

import (
	"path/filepath"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/frequent"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stats"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tree"
	"metsuke.dev/metsuke/audit/verify"
)

// Bounds of what is kept.
const (
	maxContainers = 64
	maxInstances  = 200 // of all containers together
	maxListed     = 100 // exec sessions, limits and kills for want of memory, gaps: of each
	maxCells      = 320 // of the band
)

// Report is what a page shows. Its zero value has nothing. Not safe for concurrent use.
type Report struct {
	stats  stats.Stats
	forest tree.Forest
	lanes  map[*tree.Process]*lane
	band   *strip[cell]

	containers []*container
	byPath     map[string]*container
	instances  int    // that are kept of all containers
	unknown    uint64 // records of containers that are not kept

	denials      frequent.Table[*denial]
	destinations frequent.Table[*destination]
	removed      frequent.Table[*file] // apart, so that what is written often does not hide it
	written      frequent.Table[*file]
	sessions     list[*session]
	pressures    list[pressure]
	gaps         list[gap]

	ledger *verify.Ledger
	others map[verify.Severity]uint64 // verdicts on streams of containers that are not kept
}

// list keeps the first few of what is added.
type list[T any] struct {
	kept []T
	more uint64
}

func (l *list[T]) add(x T) bool {
	if len(l.kept) >= maxListed {
		l.more++
		return false
	}
	l.kept = append(l.kept, x)
	return true
}

// cell is what happened in a piece of time.
type cell struct {
	allowed, denied, killed uint64 // calls; of a folded record when the first one came
	limits, ooms, losses    uint64 // records
}

func (c *cell) add(o cell) {
	c.allowed, c.denied, c.killed = c.allowed+o.allowed, c.denied+o.denied, c.killed+o.killed
	c.limits, c.ooms, c.losses = c.limits+o.limits, c.ooms+o.ooms, c.losses+o.losses
}

// container is one stream.
type container struct {
	number    int
	of        stream.Stream
	id        audit.Identity
	instances []*instance
	more      uint64 // instances that are not kept
	first     *tree.Process
	running   map[string]*session // by exec id
	records   uint64
	seq       uint64 // of the last record
	at        int64  // of the last record; -1: there was none
	evidence  *verify.Stream
}

// instance is one life of a container.
type instance struct {
	id       audit.Identity
	from, to int64
	receipt  *receipt // nil: what was read has none
	exit     *Text    // nil: no record says how it ended
	exited   int64
}

// session is an exec session.
type session struct {
	container int
	id        string
	command   Text
	uid       uint32
	from, to  int64
	exit      *Text // nil: no record says how it ended
	process   *tree.Process
}

// Add takes a record of a stream in. Nothing of it is kept but copies.
func (r *Report) Add(rec *record.Record, of stream.Stream) {
	r.stats.Add(rec, of)
	at := nanos(rec.Event.Time)
	p := r.forest.Add(rec, of)
	if p != nil {
		r.lane(p, at).seen(at)
	}
	c := r.container(rec, of)
	if c == nil {
		r.unknown++
		c = &container{number: maxContainers, at: -1} // of which nothing is kept
	}
	r.event(rec, at, p, c)
	c.records++
	c.seq, c.at = rec.Seq, at
}

// event takes in what a record says.
func (r *Report) event(rec *record.Record, at int64, p *tree.Process, c *container) {
	e := &rec.Event
	if r.band == nil {
		r.band = &strip[cell]{most: maxCells, merge: (*cell).add}
	}
	b := r.band.at(at)
	switch {
	case e.Syscall != nil:
		r.call(e.Syscall, at, p, c, b)
	case e.Receipt != nil:
		c.first = p
		c.running = nil
	case e.ExecStart != nil:
		r.begin(e, at, p, c)
	case e.Limit != nil:
		b.limits++
		r.pressures.add(pressure{container: c.number, at: at, what: *said(e)})
	case e.OOM != nil:
		b.ooms++
		r.pressures.add(pressure{container: c.number, at: at, oom: true, what: *said(e)})
	case e.Loss != nil:
		b.losses++
		r.gaps.add(lost(rec, at, c))
	case e.Exit != nil && e.Exec != "":
		r.finish(e, at, c)
	case e.Exit != nil:
		if l := r.lanes[c.first]; l != nil {
			l.seen(at)
			l.ended = true
		}
	}
}

func (r *Report) call(call *audit.Syscall, at int64, p *tree.Process, c *container, b *cell) {
	n := max(1, call.Count)
	switch call.Verdict {
	case audit.VerdictAllowed:
		b.allowed += n
	case audit.VerdictKilled:
		b.killed += n
	default:
		b.denied += n
	}
	if p != nil {
		r.lanes[p].call(at, call, p)
	}
	r.deny(call, at, c)
	r.reach(call, at, c)
	r.touch(call, at, c)
}

func (r *Report) lane(p *tree.Process, at int64) *lane {
	l := r.lanes[p]
	if l == nil {
		if r.lanes == nil {
			r.lanes = map[*tree.Process]*lane{}
		}
		l = newLane(at)
		r.lanes[p] = l
	}
	return l
}

// container returns the container of a record, with its instance brought up to date; nil if there is no room for it.
func (r *Report) container(rec *record.Record, of stream.Stream) *container {
	c := r.stream(of)
	if c == nil {
		return nil
	}
	at := nanos(rec.Event.Time)
	var last *instance
	if n := len(c.instances); n > 0 {
		last = c.instances[n-1]
	}
	if last == nil || rec.Event.Receipt != nil && last.receipt != nil || c.id.ContainerID != rec.Identity.ContainerID {
		c.id = own(rec.Identity)
		last = &instance{id: c.id, from: at, to: at}
		if r.instances >= maxInstances {
			c.more++
		}
		if c.more == 0 {
			c.instances = append(c.instances, last)
			r.instances++
		}
	}
	if c.more > 0 { // the last one that is kept is not the one that this is of
		return c
	}
	last.from, last.to = min(last.from, at), max(last.to, at)
	switch e := &rec.Event; {
	case e.Receipt != nil:
		last.receipt = newReceipt(e.Receipt)
	case e.Exit != nil && e.Exec == "":
		last.exit, last.exited = said(e), at
	}
	return c
}

// stream returns the container of a stream; nil if there is no room for it.
func (r *Report) stream(of stream.Stream) *container {
	if c := r.byPath[of.Path]; c != nil {
		return c
	}
	if len(r.containers) >= maxContainers {
		return nil
	}
	if r.byPath == nil {
		r.byPath = map[string]*container{}
	}
	c := &container{number: len(r.containers), of: of, at: -1}
	r.byPath[of.Path] = c
	r.containers = append(r.containers, c)
	return c
}

func own(id audit.Identity) audit.Identity {
	for _, s := range []*string{&id.Node, &id.Namespace, &id.Pod, &id.PodUID, &id.Container, &id.ContainerID, &id.Profile, &id.ProfileDigest} {
		*s = strings.Clone(*s)
	}
	return id
}

// begin takes in the begin of an exec session.
func (r *Report) begin(e *audit.Event, at int64, p *tree.Process, c *container) {
	s := &session{
		container: c.number, id: cut(e.Exec), command: words(e.ExecStart.Argv, e.ExecStart.Truncated), uid: e.ExecStart.UID,
		from: at, to: at, process: p,
	}
	if !r.sessions.add(s) {
		return
	}
	if c.running == nil {
		c.running = map[string]*session{}
	}
	c.running[s.id] = s
}

// finish takes in the end of an exec session.
func (r *Report) finish(e *audit.Event, at int64, c *container) {
	s := c.running[cut(e.Exec)]
	if s == nil {
		return
	}
	delete(c.running, s.id)
	s.to, s.exit = max(s.from, at), said(e)
	if l := r.lanes[s.process]; l != nil {
		l.seen(at)
		l.ended = true
	}
}

// Missing takes note that records of a stream are not there: those behind after and before next.
func (r *Report) Missing(of stream.Stream, after, next uint64) {
	r.stats.Missing(of, after, next)
	if c := r.stream(of); c != nil && next > after+1 {
		r.gaps.add(gap{container: c.number, after: c.at, at: -1, seq: next, reason: Text{S: "missing"}, count: next - after - 1})
	}
}

// Verified takes in what was found of a stream.
func (r *Report) Verified(s *verify.Stream) {
	pod, container := filepath.Split(s.Path)
	if c := r.stream(stream.Stream{Path: s.Path, Pod: filepath.Base(pod), Container: container}); c != nil {
		c.evidence = s
		return
	}
	if r.others == nil {
		r.others = map[verify.Severity]uint64{}
	}
	r.others[s.Verdict()]++
}

// Ledger takes in what was found of the node's ledger.
func (r *Report) Ledger(l *verify.Ledger) { r.ledger = l }
