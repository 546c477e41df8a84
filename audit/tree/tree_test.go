// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/goldentest"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var agent = stream.Stream{Path: "/streams/team-a_coder_u1/agent", Pod: "team-a_coder_u1", Container: "agent"}

// growth adds records to a forest.
type growth struct {
	Forest
	seq       uint64
	container string
}

func (g *growth) add(exec string, e audit.Event) {
	g.seq++
	e.Time, e.Exec = noon.Add(time.Duration(g.seq)*time.Second), exec
	g.Add(&record.Record{Seq: g.seq, Event: e, Identity: audit.Identity{Namespace: "team-a", Pod: "coder", Container: "agent", ContainerID: g.container}}, agent)
}

func (g *growth) call(exec string, pid, ppid uint32, exe, name, class string, verdict audit.Verdict, args ...audit.Arg) {
	g.add(exec, audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: pid, PPID: ppid, UID: 1000, Exe: exe, Syscall: name, Class: class, Verdict: verdict, Args: args,
	}})
}

func (g *growth) executes(exec string, pid, ppid uint32, exe, path, argv string) {
	g.call(exec, pid, ppid, exe, "execve", "exec", audit.VerdictAllowed,
		audit.Arg{Name: "path", Value: path, Evidence: audit.EvidencePeeked}, audit.Arg{Name: "argv", Value: argv, Evidence: audit.EvidencePeeked})
}

func forest() *growth {
	g := &growth{container: "9f3c0c1e9f3c0c1e"}
	g.add("", audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{PID: 10}})
	g.executes("", 10, 9, "/.metsuke/guest", "/usr/bin/python3", "python3 agent.py")
	g.call("", 10, 9, "/usr/bin/python3.13", "openat", "file-write", audit.VerdictAllowed)
	g.call("", 10, 9, "/usr/bin/python3.13", "openat", "file-write", audit.VerdictAllowed)
	g.executes("", 12, 11, "/usr/bin/python3.13", "/bin/sh", "sh -c 'a\x1b[2J'") // 11 made no call yet
	g.call("", 12, 11, "/bin/sh", "ptrace", "", audit.VerdictDenied)
	g.call("", 11, 10, "/usr/bin/python3.13", "connect", "net", audit.VerdictAllowed)
	g.executes("", 13, 99, "/bin/sh", "/bin/missing", "missing") // whose parent is not known
	g.call("", 13, 99, "/bin/sh", "bpf", "bpf", audit.VerdictKilled)
	g.executes("", 14, 12, "/bin/sh", "/usr/bin/curl", "curl x")                 // and nothing after that
	g.call("", 12, 10, "/bin/sh", "unlink", "file-delete", audit.VerdictAllowed) // an orphan now
	g.add("0123456789abcdef", audit.Event{Kind: audit.KindExec, ExecStart: &audit.ExecStart{PID: 30, Argv: []string{"sh", "-c", "ls \u202e"}}})
	g.executes("0123456789abcdef", 30, 9, "/.metsuke/guest", "/bin/sh", "sh -c ls")
	g.call("0123456789abcdef", 31, 30, "/bin/sh", "openat", "file-write", audit.VerdictAllowed)
	g.call("0123456789abcdef", 14, 30, "/bin/sh", "openat", "file-write", audit.VerdictAllowed) // another with that number
	g.container = "another"
	g.call("", 5, 0, "/bin/x", "openat", "file-write", audit.VerdictAllowed) // of an instance whose receipt was not chosen
	return g
}

func TestGolden(t *testing.T) {
	g := forest()
	var text, lines bytes.Buffer
	if err := g.Print(&text); err != nil {
		t.Fatal(err)
	}
	if err := g.PrintJSON(&lines); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"tree.txt": text.String(), "tree.ndjson": lines.String()} {
		goldentest.Equal(t, "testdata/"+name, got)
	}
	var none Forest
	text.Reset()
	if err := none.Print(&text); err != nil || text.String() != "no processes\n" {
		t.Errorf("%v: %s", err, text.String())
	}
}

// TestBounded: of more processes than are kept it is told how many there were; deep trees are not wide; each process is there once.
func TestBounded(t *testing.T) {
	g := &growth{container: "c"}
	g.Processes = 100
	for pid := uint32(2); pid < 300; pid++ {
		g.call("", pid, pid-1, "/bin/x", "openat", "file-write", audit.VerdictAllowed)
	}
	for i := range 100 {
		g.call("", 2, 1, fmt.Sprint("/bin/", i, strings.Repeat("x", audit.MaxValue)), fmt.Sprint("call", i), fmt.Sprint("class", i), audit.VerdictDenied)
	}
	var out bytes.Buffer
	if err := g.Print(&out); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 100<<10 || strings.Count(out.String(), "\n") != 1+100+2 || !strings.Contains(out.String(), "Not shown: 199 processes, with 199 calls") ||
		!strings.Contains(out.String(), "(99 deep)") {
		t.Errorf("%d bytes, %d lines:\n%s", out.Len(), strings.Count(out.String(), "\n"), out.String())
	}
	out.Reset()
	if err := g.PrintJSON(&out); err != nil {
		t.Fatal(err)
	}
	pids := map[string]bool{}
	for text := range bytes.Lines(out.Bytes()) {
		var p struct{ PID, Seq uint64 }
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		pids[fmt.Sprint(p.PID, p.Seq)] = true
	}
	if len(pids) != 100 {
		t.Errorf("%d processes", len(pids))
	}
}

// Numbers that go round in circles are no trap.
func TestCircles(t *testing.T) {
	g := &growth{container: "c"}
	for _, p := range [][2]uint32{{1, 2}, {2, 1}, {3, 3}, {4, 5}, {5, 6}, {6, 4}, {0, 0}} {
		for range 2 {
			g.call("", p[0], p[1], "/bin/x", "openat", "file-write", audit.VerdictAllowed)
		}
	}
	var out bytes.Buffer
	if err := g.Print(&out); err != nil {
		t.Fatal(err)
	}
	for pid := range 7 {
		if n := strings.Count(out.String(), fmt.Sprintf("─ %d ", pid)); n != 1 {
			t.Errorf("process %d is there %d times:\n%s", pid, n, out.String())
		}
	}
}
