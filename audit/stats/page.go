// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/terminal"
)

// Page is what Stats have come to. Lists are never nil; names are cut at 512 bytes.
type Page struct {
	From       *time.Time    `json:"from"` // nil: there is no record
	To         *time.Time    `json:"to"`
	Records    uint64        `json:"records"`
	Pods       int           `json:"pods"`
	Containers int           `json:"containers"`
	Profiles   []Name        `json:"profiles"`
	Calls      []Class       `json:"calls"`
	Denied     []Name        `json:"denied"`   // calls, with the rule that denied them
	Programs   []Name        `json:"programs"` // paths that were executed, as callers showed them; as are all paths and addresses here
	Written    []Name        `json:"written"`  // files opened for writing, made or truncated
	Deleted    []Name        `json:"deleted"`  // or renamed
	Read       []Name        `json:"read"`
	Outbound   []Name        `json:"outbound"` // addresses of connect, sendto and their like
	Bound      []Name        `json:"bound"`
	Sessions   []Name        `json:"sessions"` // commands of exec sessions
	Starts     uint64        `json:"starts"`
	Exits      uint64        `json:"exits"`
	Execs      uint64        `json:"execs"` // exec sessions
	OOMs       uint64        `json:"ooms"`
	Limits     []tally.Limit `json:"limits"`
	Losses     []tally.Loss  `json:"losses"`
	Missing    uint64        `json:"missing"` // records whose numbers are not there, though such before and behind them are
}

// Name is how often a name occurred.
type Name struct {
	Name  record.Text `json:"name"`
	Count uint64      `json:"count"`
	Over  uint64      `json:"over,omitempty"` // by which count may be too high, because there were very many names
}

// Class is how often calls of a class were made.
type Class struct {
	Class   record.Text `json:"class"` // empty: denied outside all classes
	Allowed uint64      `json:"allowed"`
	Denied  uint64      `json:"denied"`
	Killed  uint64      `json:"killed"`
}

// Page returns what the records have come to, with lists of n names at most.
func (s *Stats) Page(n int) *Page {
	c := s.tally.Counts()
	p := &Page{
		Records: s.records, Pods: len(s.pods), Containers: len(s.containers), Profiles: first(&s.profiles, n), Calls: classes(c.Calls),
		Denied: first(&s.denied, n), Programs: first(&s.programs, n), Written: first(&s.written, n), Deleted: first(&s.deleted, n), Read: first(&s.read, n),
		Outbound: first(&s.destinations, n), Bound: first(&s.listening, n), Sessions: first(&s.sessions, n),
		Starts: c.Starts, Exits: s.exits, Execs: c.Execs, OOMs: c.OOMs, Limits: c.Limits, Losses: c.Losses, Missing: s.missing,
	}
	if s.records > 0 {
		from, to := s.from.UTC(), s.to.UTC()
		p.From, p.To = &from, &to
	}
	return p
}

// first returns the n names that occur most; of equal ones those first that are first in the alphabet.
func first(of *names, n int) []Name {
	list := []Name{}
	for _, item := range of.Items() {
		if len(list) == n {
			break
		}
		list = append(list, Name{Name: record.Text(item.Name), Count: item.Count, Over: item.Over})
	}
	return list
}

// classes puts the verdicts of each class side by side, those first that are most.
func classes(calls []tally.Calls) []Class {
	out := []Class{}
	for _, c := range calls {
		i := slices.IndexFunc(out, func(o Class) bool { return string(o.Class) == c.Class })
		if i < 0 {
			i = len(out)
			out = append(out, Class{Class: record.Text(c.Class)})
		}
		switch c.Verdict {
		case audit.VerdictAllowed:
			out[i].Allowed += c.Count
		case audit.VerdictKilled:
			out[i].Killed += c.Count
		default:
			out[i].Denied += c.Count
		}
	}
	total := func(c Class) uint64 { return c.Allowed + c.Denied + c.Killed }
	slices.SortStableFunc(out, func(a, b Class) int { return cmp.Compare(total(b), total(a)) })
	return out
}

// Print writes the page for people.
func (p *Page) Print(w io.Writer) error {
	out := &terminal.Printer{W: w}
	if p.Records == 0 {
		out.F("no records\n")
		return out.Err
	}
	out.F("%s to %s UTC (%s)\n", p.From.Format(time.DateTime), p.To.Format(time.DateTime), p.To.Sub(*p.From).Round(time.Second))
	out.F("%s of %s in %s; %d starts, %d exits, %d exec sessions\n", many(p.Records, "record"), many(uint64(p.Containers), "container"),
		many(uint64(p.Pods), "pod"), p.Starts, p.Exits, p.Execs)
	for _, l := range p.Losses {
		out.F("LOSS %s: %s, events missing: %d\n", timeline.Escape(l.Reason), many(l.Records, "record"), l.Missing)
	}
	if p.Missing > 0 {
		out.F("MISSING %s: numbers are left out. metsuke audit verify says where\n", many(p.Missing, "record"))
	}
	if p.OOMs > 0 {
		out.F("killed for want of memory: %d\n", p.OOMs)
	}
	for _, l := range p.Limits {
		out.F("limit lowered: %s ×%d\n", timeline.Escape(l.Resource), l.Count)
	}
	var rows [][]string
	for _, c := range p.Calls {
		rows = append(rows, []string{orNone(c.Class), number(c.Allowed), number(c.Denied), number(c.Killed)})
	}
	if len(rows) > 0 {
		out.F("\n")
		out.Table([]string{"CALLS", "ALLOWED", "DENIED", "KILLED"}, rows)
	}
	for _, l := range []struct {
		heading string
		names   []Name
	}{
		{"DENIED OR KILLED", p.Denied}, {"PROGRAMS RUN", p.Programs}, {"FILES WRITTEN", p.Written}, {"FILES DELETED OR RENAMED", p.Deleted},
		{"FILES READ", p.Read}, {"CONNECTED OR SENT TO", p.Outbound}, {"BOUND TO", p.Bound}, {"EXEC SESSIONS", p.Sessions}, {"PROFILES, BY RECORDS", p.Profiles},
	} {
		printNames(out, l.heading, l.names)
	}
	return out.Err
}

func printNames(out *terminal.Printer, heading string, names []Name) {
	var rows [][]string
	for _, n := range names {
		count := number(n.Count)
		if n.Over > 0 {
			count = fmt.Sprintf("%d to %d", n.Count-n.Over, n.Count)
		}
		rows = append(rows, []string{count, orNone(n.Name)})
	}
	if len(rows) > 0 {
		out.F("\n")
		out.Table([]string{"TIMES", heading}, rows)
	}
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func orNone(s record.Text) string {
	if s == "" {
		return "-"
	}
	return timeline.Escape(string(s))
}

func many(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
