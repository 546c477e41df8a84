// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/goldentest"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func peeked(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidencePeeked}
}

func call(name, class string, verdict audit.Verdict, args ...audit.Arg) audit.Event {
	s := &audit.Syscall{Syscall: name, Class: class, Verdict: verdict, Args: args}
	if verdict != audit.VerdictAllowed {
		s.Origin, s.RuleID = "baseline", "no-"+name
	}
	return audit.Event{Kind: audit.KindSyscall, Syscall: s}
}

var agent = stream.Stream{Path: "/streams/team-a_coder_u1/agent", Pod: "team-a_coder_u1", Container: "agent"}

func page() *Page {
	folded := call("ptrace", "", audit.VerdictDenied)
	folded.Syscall.Count, folded.Syscall.Until = 19996, noon.Add(time.Hour)
	byDefault := call("keyctl", "", audit.VerdictDenied)
	byDefault.Syscall.RuleID = ""
	events := []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		call("execve", "exec", audit.VerdictAllowed, peeked("path", "/usr/bin/git"), peeked("argv", "git clone")),
		call("execve", "exec", audit.VerdictAllowed, peeked("path", "/usr/bin/git"), peeked("argv", "git push")),
		call("execve", "exec", audit.VerdictAllowed, peeked("path", "/bin/\x1b[2J\xff")),
		call("execve", "exec", audit.VerdictKilled, peeked("path", "/bin/denied is not run")),
		call("openat", "file-write", audit.VerdictAllowed, peeked("path", "/work/notes.txt")),
		call("symlink", "file-write", audit.VerdictAllowed, peeked("target", "/etc/shadow"), peeked("path", "/work/link")),
		call("renameat2", "file-delete", audit.VerdictAllowed, peeked("from", "/work/a"), peeked("to", "/work/b")),
		call("unlink", "file-delete", audit.VerdictAllowed, peeked("path", "/work/b")),
		call("openat", "file-read", audit.VerdictAllowed, peeked("path", "/etc/passwd")),
		call("connect", "net", audit.VerdictAllowed, peeked("addr", "10.0.0.1:443")),
		call("bind", "net", audit.VerdictAllowed, peeked("addr", "0.0.0.0:8080")),
		folded, byDefault,
		{Kind: audit.KindExec, Exec: "e1", ExecStart: &audit.ExecStart{Argv: []string{"sh", "-c", "ls"}}},
		{Kind: audit.KindExit, Exec: "e1", Exit: &audit.Exit{}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Resource: "memory"}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossShim, Count: 12}},
		{Kind: audit.KindExit, Exit: &audit.Exit{Status: 137}},
	}
	var s Stats
	for i, e := range events {
		e.Time = noon.Add(time.Duration(i) * time.Second)
		s.Add(&record.Record{Seq: uint64(i + 1), Identity: audit.Identity{Profile: "coder"}, Event: e}, agent)
	}
	s.Missing(agent, 3, 9)
	s.Missing(agent, 9, 3) // moved
	return s.Page(10)
}

func TestGolden(t *testing.T) {
	p := page()
	var text, json bytes.Buffer
	if err := p.Print(&text); err != nil {
		t.Fatal(err)
	}
	if err := output.WriteJSON(&json, p); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"page.txt": text.String(), "page.json": json.String()} {
		goldentest.Equal(t, "testdata/"+name, got)
	}
	var none Stats
	text.Reset()
	if err := none.Page(3).Print(&text); err != nil || text.String() != "no records\n" {
		t.Errorf("%v: %s", err, text.String())
	}
}

// TestConstantMemory: whatever a workload makes up, a page's memory is bounded.
func TestConstantMemory(t *testing.T) {
	var s Stats
	long := strings.Repeat("x", audit.MaxValue)
	add := func(i int) {
		name := fmt.Sprint(i, long)
		for _, e := range []audit.Event{
			call("execve", "exec", audit.VerdictAllowed, peeked("path", name)), call("openat", "file-write", audit.VerdictAllowed, peeked("path", name)),
			call(name, name, audit.Verdict(name)), call("connect", "net", audit.VerdictAllowed, peeked("addr", name)),
			{Kind: audit.KindExec, Exec: name, ExecStart: &audit.ExecStart{Argv: []string{name}}},
		} {
			s.Add(&record.Record{Event: e, Identity: audit.Identity{Profile: name}}, agent)
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 4000 {
		add(i)
	}
	if used := int64(heap()) - int64(before); used > 16<<20 {
		t.Errorf("%d bytes are kept", used)
	}
	runtime.KeepAlive(&s)
}
