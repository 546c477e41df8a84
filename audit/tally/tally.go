// SPDX-License-Identifier: Apache-2.0

// Package tally counts the records of a stream, as they are written or as they are read: calls by class and verdict,
// denials by rule, losses, clamped limits, exec sessions. It takes constant memory, whatever the records hold.
package tally

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

// Bounds of what a Tally keeps.
const (
	MaxNames    = 128 // names of one kind (rules, classes, …) that are told apart; what comes after them is Other
	MaxName     = 64  // bytes of a name; longer ones are cut
	MaxRecent   = 32  // denials whose positions are kept: the newest
	MaxSessions = 256 // exec sessions that are known to run
)

// Other stands for the names beyond MaxNames.
const Other = "(other)"

// Tally counts. Its zero value has counted nothing. Its methods are safe for concurrent use and do not block.
type Tally struct {
	mu       sync.Mutex
	records  uint64 // guarded by mu, as all below
	starts   uint64
	ooms     uint64
	execs    uint64
	calls    table // by class and verdict
	denials  table // by origin and rule
	losses   table // by reason
	limits   table // by resource
	sessions map[string]stream.Position
	recent   [MaxRecent]stream.Position // a ring
	denied   uint64                     // records of denials, so the place of the next one in recent
	start    *stream.Position
	timing   *stream.Position
	exit     *stream.Position
	last     stream.Position // valid if records is not 0
}

type table map[[2]string]*cell

type cell struct {
	count   uint64
	missing uint64 // of losses
	newest  stream.Position
}

// at returns the cell of a name. Only a new name allocates. The strings are not kept.
func (t *table) at(name ...string) *cell {
	var key [2]string
	copy(key[:], name)
	if n := (*t)[key]; n != nil {
		return n
	}
	if *t == nil {
		*t = table{}
	}
	if len(*t) >= MaxNames {
		key = [2]string{Other, Other}
		if n := (*t)[key]; n != nil {
			return n
		}
	}
	for i := range key {
		key[i] = strings.Clone(key[i][:min(len(key[i]), MaxName)])
	}
	n := (*t)[key] // a longer name was cut to it
	if n == nil {
		n = new(cell)
		(*t)[key] = n
	}
	return n
}

// Add counts a record, which begins at the position. Nothing of the event is kept.
func (t *Tally) Add(e *audit.Event, at stream.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records++
	t.last = at
	switch {
	case e.Syscall != nil:
		t.addCall(e.Syscall, at)
	case e.Receipt != nil:
		t.starts++
		t.start, t.timing, t.exit, t.sessions = place(at), nil, nil, nil
	case e.Timing != nil:
		t.timing = place(at)
	case e.ExecStart != nil:
		t.execs++
		if t.sessions == nil {
			t.sessions = map[string]stream.Position{}
		}
		if len(t.sessions) < MaxSessions {
			t.sessions[strings.Clone(e.Exec)] = at
		}
	case e.Limit != nil:
		n := t.limits.at(e.Limit.Resource)
		n.count, n.newest = n.count+1, at
	case e.OOM != nil:
		t.ooms += max(1, e.OOM.Count)
	case e.Loss != nil:
		n := t.losses.at(e.Loss.Reason)
		n.count, n.missing, n.newest = n.count+1, n.missing+e.Loss.Count, at
	case e.Exit != nil && e.Exec != "":
		delete(t.sessions, e.Exec)
	case e.Exit != nil:
		t.exit, t.sessions = place(at), nil
	}
}

// place keeps a position; &at in Add would cost an allocation for each record.
func place(at stream.Position) *stream.Position { return &at }

func (t *Tally) addCall(s *audit.Syscall, at stream.Position) {
	n := max(1, s.Count)
	t.calls.at(s.Class, string(s.Verdict)).count += n
	if s.Verdict == audit.VerdictAllowed {
		return
	}
	t.denials.at(s.Origin, s.RuleID).count += n
	t.recent[t.denied%MaxRecent] = at
	t.denied++
}

// Counts are what a Tally has counted. Lists are ordered by name, and empty rather than absent.
type Counts struct {
	Records uint64  `json:"records"`
	Starts  uint64  `json:"starts"` // instances whose receipt was written
	Calls   []Calls `json:"calls"`
	Denials []Rule  `json:"denials"`
	Losses  []Loss  `json:"losses"`
	Limits  []Limit `json:"limits"`
	OOMs    uint64  `json:"ooms"`  // processes killed, at least
	Execs   uint64  `json:"execs"` // exec sessions that began
	Places  Places  `json:"places"`
}

// Calls are system calls that have a record, alone or folded.
type Calls struct {
	Class   string        `json:"class"` // empty: a denial outside all classes
	Verdict audit.Verdict `json:"verdict"`
	Count   uint64        `json:"count"`
}

// Rule is what one rule has denied or killed.
type Rule struct {
	Origin string `json:"origin"` // profile, or "pod"
	RuleID string `json:"ruleID"` // empty: its default
	Count  uint64 `json:"count"`
}

// Loss is what was lost for one reason.
type Loss struct {
	Reason  string          `json:"reason"`
	Records uint64          `json:"records"`
	Missing uint64          `json:"missing"` // events, as far as known
	Newest  stream.Position `json:"newest"`  // record
}

// Limit is how often requests of one resource were lowered.
type Limit struct {
	Resource string          `json:"resource"`
	Count    uint64          `json:"count"`
	Newest   stream.Position `json:"newest"` // record
}

// Places are where the records are that a reader may want to see.
type Places struct {
	Last     *stream.Position           `json:"last"`     // the newest record; nil: none
	Start    *stream.Position           `json:"start"`    // the newest receipt; nil: none
	Timing   *stream.Position           `json:"timing"`   // how long that start took; nil: not known
	Exit     *stream.Position           `json:"exit"`     // the end of that instance; nil: it has not ended
	Denials  []stream.Position          `json:"denials"`  // the newest, MaxRecent at most, the oldest of them first
	Sessions map[string]stream.Position `json:"sessions"` // by exec id: of those that run; nil: none
}

// Counts returns a copy of what was counted so far.
func (t *Tally) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Counts{
		Records: t.records, Starts: t.starts, OOMs: t.ooms, Execs: t.execs,
		Calls: []Calls{}, Denials: []Rule{}, Losses: []Loss{}, Limits: []Limit{},
		Places: Places{Start: t.start, Timing: t.timing, Exit: t.exit, Denials: []stream.Position{}, Sessions: maps.Clone(t.sessions)},
	}
	if t.records > 0 {
		c.Places.Last = place(t.last)
	}
	for _, k := range t.calls.sorted() {
		c.Calls = append(c.Calls, Calls{k[0], audit.Verdict(k[1]), t.calls[k].count})
	}
	for _, k := range t.denials.sorted() {
		c.Denials = append(c.Denials, Rule{k[0], k[1], t.denials[k].count})
	}
	for _, k := range t.losses.sorted() {
		n := t.losses[k]
		c.Losses = append(c.Losses, Loss{k[0], n.count, n.missing, n.newest})
	}
	for _, k := range t.limits.sorted() {
		c.Limits = append(c.Limits, Limit{k[0], t.limits[k].count, t.limits[k].newest})
	}
	for i := t.denied - min(t.denied, MaxRecent); i < t.denied; i++ {
		c.Places.Denials = append(c.Places.Denials, t.recent[i%MaxRecent])
	}
	return c
}

func (t table) sorted() [][2]string {
	keys := make([][2]string, 0, len(t))
	for k := range t {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return keys
}

// Denied is how many calls were denied or killed.
func (c *Counts) Denied() (n uint64) {
	for _, r := range c.Denials {
		n += r.Count
	}
	return n
}
