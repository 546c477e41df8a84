// SPDX-License-Identifier: Apache-2.0

package tally

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

func denial(origin, rule string, n uint64) *audit.Event {
	return &audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		Syscall: "ptrace", Verdict: audit.VerdictDenied, Origin: origin, RuleID: rule, Count: n,
	}}
}

func TestTally(t *testing.T) {
	var tally Tally
	events := []*audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Resource: "memory"}},
		{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Class: "exec", Verdict: audit.VerdictAllowed}},
		denial("baseline", "no-ptrace", 0),
		denial("baseline", "no-ptrace", 19996),
		{Kind: audit.KindExec, Exec: "a", ExecStart: &audit.ExecStart{}},
		{Kind: audit.KindExec, Exec: "b", ExecStart: &audit.ExecStart{}},
		{Kind: audit.KindSyscall, Exec: "b", Syscall: &audit.Syscall{Class: "net", Verdict: audit.VerdictKilled, Origin: "coder"}},
		{Kind: audit.KindExit, Exec: "a", Exit: &audit.Exit{}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: "stream-failed", Count: 7}},
		{Kind: audit.KindTiming, Timing: &audit.Timing{}},
	}
	for i, e := range events {
		tally.Add(e, stream.Position{Segment: 1, Offset: int64(i)})
	}
	at := func(i int64) stream.Position { return stream.Position{Segment: 1, Offset: i} }
	start, last := at(0), at(11)
	want := Counts{
		Records: 12, Starts: 1, OOMs: 1, Execs: 2,
		Calls:   []Calls{{"", "denied", 19997}, {"exec", "allowed", 1}, {"net", "killed", 1}},
		Denials: []Rule{{"baseline", "no-ptrace", 19997}, {"coder", "", 1}},
		Losses:  []Loss{{"stream-failed", 1, 7, at(10)}}, Limits: []Limit{{"memory", 1, at(1)}},
		Places: Places{
			Last: &last, Start: &start, Timing: &last, Denials: []stream.Position{at(3), at(4), at(7)}, Sessions: map[string]stream.Position{"b": at(6)},
		},
	}
	got := tally.Counts()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if n := got.Denied(); n != 19998 {
		t.Errorf("denied %d", n)
	}
	// The end of the container ends its sessions, and the next instance begins anew.
	tally.Add(&audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}}, at(12))
	if got := tally.Counts().Places; len(got.Sessions) != 0 || got.Exit == nil || *got.Exit != at(12) {
		t.Errorf("after the exit: %+v", got)
	}
	tally.Add(events[0], at(13))
	if got := tally.Counts().Places; got.Exit != nil || got.Timing != nil || *got.Start != at(13) {
		t.Errorf("after the next start: %+v", got)
	}
}

// Whatever a stream holds, memory is bounded, and no call is left uncounted.
func TestBounds(t *testing.T) {
	var tally Tally
	const n = 5000
	for i := range n {
		tally.Add(denial("made up", fmt.Sprint(i, strings.Repeat("x", 2*MaxName)), 1), stream.Position{Segment: 1, Offset: int64(i)})
		tally.Add(&audit.Event{Kind: audit.KindExec, Exec: fmt.Sprint(i), ExecStart: &audit.ExecStart{}}, stream.Position{})
	}
	c := tally.Counts()
	if len(c.Denials) != MaxNames+1 || len(c.Places.Sessions) != MaxSessions || c.Denied() != n || c.Execs != n {
		t.Errorf("%d rules, %d sessions, %d denials, %d execs", len(c.Denials), len(c.Places.Sessions), c.Denied(), c.Execs)
	}
	for _, r := range c.Denials {
		if len(r.RuleID) > MaxName {
			t.Fatalf("a name of %d bytes is kept", len(r.RuleID))
		}
	}
	if d := c.Places.Denials; len(d) != MaxRecent || d[0].Offset != n-MaxRecent || d[MaxRecent-1].Offset != n-1 {
		t.Errorf("recent denials: %v", d)
	}
}

// Add is on the way of every audited call.
func TestAddDoesNotAllocate(t *testing.T) {
	var tally Tally
	e := denial("baseline", "no-ptrace", 1)
	at := stream.Position{Segment: 3, Offset: 9}
	tally.Add(e, at)
	if n := testing.AllocsPerRun(100, func() { tally.Add(e, at) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}
