// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// flood adds records of which everything is another one each time, as large as records are.
func flood(r *Report, from, to int) {
	long := strings.Repeat("x", audit.MaxValue)
	peeked := func(name, value string) audit.Arg {
		return audit.Arg{Name: name, Value: value, Evidence: audit.EvidencePeeked}
	}
	for i := from; i < to; i++ {
		value := fmt.Sprint(i, long)
		name := value[:audit.MaxName]
		call := func(class, call string, verdict audit.Verdict, args ...audit.Arg) audit.Event {
			return audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{
				PID: uint32(i), PPID: uint32(i / 2), Exe: value, Comm: name, Syscall: call, Class: class, Verdict: verdict, RuleID: name, Args: args,
			}}
		}
		var limits []audit.ReceiptLimit
		for range audit.MaxLimits {
			limits = append(limits, audit.ReceiptLimit{Name: name, Found: name})
		}
		for n, e := range []audit.Event{
			{Kind: audit.KindStart, Receipt: &audit.Receipt{PID: uint32(i), Image: value, Limits: limits}},
			call("exec", "execve", audit.VerdictAllowed, peeked("path", value), peeked("argv", value)),
			call("net", name, audit.VerdictDenied, peeked("addr", value), peeked("a", value), peeked("b", value)),
			call("file-write", "openat", audit.VerdictAllowed, peeked("path", value)),
			call("file-delete", "rename", audit.VerdictAllowed, peeked("from", value), peeked("to", value)),
			{Kind: audit.KindExec, Exec: name, ExecStart: &audit.ExecStart{PID: uint32(i), Argv: []string{value}}},
			{Kind: audit.KindLimit, Limit: &audit.Limit{Resource: name, Requested: name}}, {Kind: audit.KindOOM, OOM: &audit.OOM{}},
			{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: name, Detail: value}}, {Kind: audit.KindExit, Exit: &audit.Exit{Cause: name}},
		} {
			e.Time = noon.Add(time.Duration(i) * time.Second)
			s := stream.Stream{Path: fmt.Sprint("/s/p/", i%500), Pod: "p", Container: fmt.Sprint(i % 500)}
			r.Add(&record.Record{Seq: uint64(i*10 + n + 1), Event: e, Identity: audit.Identity{Container: name, ContainerID: name, Profile: name}}, s)
			r.Missing(s, uint64(i), uint64(i)+2)
		}
	}
}

// Whatever and however many the records are, what is kept and what is written of them is bounded.
func TestConstantMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var r Report
	r.forest.Processes = 500 // the bound of a tree is its own
	before := heap()
	flood(&r, 0, 3000)
	full := heap()
	flood(&r, 3000, 6000)
	if used, grown := full-before, heap()-full; used > 48<<20 || grown > 4<<20 {
		t.Errorf("%d bytes are kept of half of the records, and %d more of all", used, grown)
	}
	page := write(t, &r, About{At: verifiedAt})
	if len(page) > 6<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	for _, want := range []string{
		"more than 1,024 different ones", "processes with ", "of further containers are counted", "And 5,900 more, later ones.", "6,000",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	runtime.KeepAlive(&r)
}

// Rows in rows have a bound, which a browser's parser has as well; no process is lost by it.
func TestDeepTree(t *testing.T) {
	var r Report
	s := stream.Stream{Path: "/s/p/c", Pod: "p", Container: "c"}
	for pid := range uint32(300) {
		e := audit.Event{Time: noon, Kind: audit.KindSyscall, Syscall: &audit.Syscall{
			PID: pid + 2, PPID: pid + 1, Syscall: "execve", Class: "exec", Verdict: audit.VerdictAllowed,
		}}
		if pid == 299 {
			e.Syscall.Verdict = audit.VerdictDenied
		}
		r.Add(&record.Record{Seq: uint64(pid + 1), Event: e}, s)
	}
	page := write(t, &r, About{At: verifiedAt})
	if n := strings.Count(page, `class="pid"`); n != 301 {
		t.Errorf("%d processes of 301", n)
	}
	if n := strings.Count(page, `<details class="proc`); n != maxDepth {
		t.Errorf("%d rows have rows in them", n)
	}
	if !strings.Contains(page, "300 deep") {
		t.Error("a row does not say how deep it is")
	}
	parse(t, page)
}

// Of many processes those are shown that were denied something, below the nearest one that is shown.
func TestChosenProcesses(t *testing.T) {
	var r Report
	s := stream.Stream{Path: "/s/p/c", Pod: "p", Container: "c"}
	seq := uint64(0)
	call := func(pid, ppid uint32, verdict audit.Verdict) {
		seq++
		c := &audit.Syscall{PID: pid, PPID: ppid, Exe: "/bin/x", Syscall: "openat", Class: "file-write", Verdict: verdict}
		r.Add(&record.Record{Seq: seq, Event: audit.Event{Time: noon, Kind: audit.KindSyscall, Syscall: c}}, s)
	}
	call(2, 0, audit.VerdictAllowed)
	for range 9 {
		call(2, 0, audit.VerdictAllowed)
	}
	call(3, 2, audit.VerdictAllowed) // one call alone, as all of the crowd
	for pid := range uint32(600) {
		call(1000+pid, 2, audit.VerdictAllowed)
		call(1000+pid, 2, audit.VerdictAllowed)
	}
	call(4, 3, audit.VerdictDenied)
	page := write(t, &r, About{At: verifiedAt})
	if n := strings.Count(page, `class="pid"`); n != maxProcesses {
		t.Errorf("%d processes are shown", n)
	}
	for _, want := range []string{">4</span>", "1 between not shown", "Not shown: 203 processes with 405 calls"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// A strip has all that was put into it, wherever it came, in a bounded number of cells.
func TestStrip(t *testing.T) {
	for _, times := range [][]int64{
		{0}, {5, 3, 1}, {1e18, 0}, {0, 1e18, 5e17}, {1e9, 2e9, 3e9, 0, 7e18}, {3e6, 4e6, 5e6, 2e6, 1e6, 0, 9e6, 8e6, 7e6, 6e6},
	} {
		s := strip[int]{most: 4, merge: func(into *int, cell int) { *into += cell }}
		for _, at := range times {
			*s.at(at)++
		}
		sum := 0
		for _, n := range s.cells {
			sum += n
		}
		if sum != len(times) || len(s.cells) > 4 || s.start%s.width != 0 {
			t.Errorf("%v: %+v", times, s.cells)
		}
		for _, at := range times {
			if i := (at - s.start) / s.width; at < s.start || i >= int64(len(s.cells)) || s.cells[i] == 0 {
				t.Errorf("%v: %d is in no cell", times, at)
			}
		}
	}
}

// Times that are none do not stretch the axis beyond what can be drawn.
func TestTimes(t *testing.T) {
	var r Report
	s := stream.Stream{Path: "/s/p/c", Pod: "p", Container: "c"}
	for i, at := range []time.Time{{}, noon, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		e := audit.Event{Time: at, Kind: audit.KindSyscall, Syscall: &audit.Syscall{PID: 2, Verdict: "denied", Count: 2, Until: at}}
		r.Add(&record.Record{Seq: uint64(i + 1), Event: e}, s)
	}
	page := write(t, &r, About{At: verifiedAt})
	for _, want := range []string{"1970-01-01 00:00:00", "2200-01-01 00:00:00"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	parse(t, page)
}

// A page of no record says so.
func TestNothing(t *testing.T) {
	var r Report
	page := write(t, &r, About{Pod: "team-a/coder", At: verifiedAt})
	for _, want := range []string{"team-a/coder", "undecided", "without a key", "No processes.", "None."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	parse(t, page)
}
