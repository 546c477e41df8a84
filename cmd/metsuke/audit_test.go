// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

var auditMoment = time.Date(2026, 11, 21, 10, 31, 7, 114_000_000, time.UTC)

// auditStreams writes two pods' streams and returns their root.
func auditStreams(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	write := func(id audit.Identity, events ...audit.Event) {
		w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range events {
			if err := w.Append(&events[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	at := func(ms int) time.Time { return auditMoment.Add(time.Duration(ms) * time.Millisecond) }
	write(audit.Identity{Namespace: "default", Pod: "coder", PodUID: "u1", Container: "agent", ContainerID: "c1"},
		audit.Event{Time: at(0), Kind: audit.KindStart, Receipt: &audit.Receipt{SeccompMode: 2, FilterDigest: "3f9c",
			Limits: []audit.ReceiptLimit{{Name: "pids", Found: "256"}}}},
		audit.Event{Time: at(2), Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "execve", Class: "exec", Verdict: audit.VerdictAllowed,
			Args: []audit.Arg{{Name: "path", Value: "/bin/x\x1b[2J", Evidence: audit.EvidencePeeked}}}},
		audit.Event{Time: at(9), Kind: audit.KindSyscall, Syscall: &audit.Syscall{Syscall: "bpf", Verdict: audit.VerdictDenied,
			Errno: "EPERM", Origin: "baseline", RuleID: "no-bpf"}})
	write(audit.Identity{Namespace: "team-a", Pod: "other", PodUID: "u2", Container: "main", ContainerID: "c2"},
		audit.Event{Time: at(5), Kind: audit.KindExit, Exit: &audit.Exit{Status: 1}})
	return root
}

// auditRun runs the command below a root that marks mistakes in usage, as the real one does.
func auditRun(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out bytes.Buffer
	stderr, err = auditInto(ctx, &out, args...)
	return out.String(), stderr, err
}

func auditInto(ctx context.Context, out io.Writer, args ...string) (stderr string, err error) {
	var errs bytes.Buffer
	root := &cobra.Command{Use: "metsuke", SilenceErrors: true, SilenceUsage: true}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errors.Join(errAuditUsage, err) })
	root.AddCommand(newAuditCommand())
	root.SetArgs(append([]string{"audit"}, args...))
	root.SetOut(out)
	root.SetErr(&errs)
	err = root.ExecuteContext(ctx)
	return errs.String(), err
}

var errAuditUsage = errors.New("usage")

func TestAuditTail(t *testing.T) {
	dir := auditStreams(t)
	const (
		day   = "── 2026-11-21 UTC ──\n"
		start = "10:31:07.114 default/coder[agent]         start    filter 3f9c in force, pids ≤ 256\n"
		exec  = "10:31:07.116 default/coder[agent]         allowed  execve(\"/bin/x\\x1b[2J\")\n"
		exit  = "10:31:07.119 team-a/other[main]           exit     status 1\n"
		bpf   = "10:31:07.123 default/coder[agent]         denied   bpf()  EPERM  baseline/no-bpf\n"
	)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, day + start + exec + exit + bpf},
		{[]string{"-n", "2"}, day + exit + bpf},
		{[]string{"-n", "0"}, ""},
		{[]string{"--lines", "all"}, day + start + exec + exit + bpf},
		{[]string{"coder"}, day + start + exec + bpf},
		{[]string{"team-a/other", "none"}, day + exit},
		{[]string{"--namespace", "team-a,b"}, day + exit},
		{[]string{"--container", "main"}, day + exit},
		{[]string{"--verdict", "denied,killed"}, day + bpf},
		{[]string{"--class", "exec"}, day + exec},
		{[]string{"--kind", "exit", "--kind", "start"}, day + start + exit},
		{[]string{"--since", "2026-11-21T10:31:07.119Z"}, day + exit + bpf},
		{[]string{"--until", "2026-11-21T11:31:07.116+01:00"}, day + start},
		{[]string{"--since", "2126-11-21T10:31:07Z"}, ""},
	} {
		out, errs, err := auditRun(t.Context(), append([]string{"tail", "--dir", dir}, tt.args...)...)
		if out != tt.want || errs != "" || err != nil {
			t.Errorf("tail %q: %v, stderr %q, stdout\n%swant\n%s", tt.args, err, errs, out, tt.want)
		}
	}
	out, _, err := auditRun(t.Context(), "tail", "--dir", dir, "-o", "json", "-n", "1")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := record.ParseStrict([]byte(out)); err != nil || r.Seq != 3 || r.Chain == "" {
		t.Errorf("-o json prints %q: %v", out, err)
	}
}

func TestAuditUsage(t *testing.T) {
	dir := auditStreams(t)
	for _, tt := range []struct {
		args  []string
		usage bool
		want  string
	}{
		{[]string{"tail", "--verdict", "maybe"}, true, "must be one of allowed, denied, killed"},
		{[]string{"tail", "--kind", "syscalls"}, true, "must be one of start, timing"},
		{[]string{"tail", "--since", "yesterday"}, true, "must be a duration"},
		{[]string{"tail", "--since", "-5m"}, true, "must not be negative"},
		{[]string{"tail", "-n", "-3"}, true, "must be a count or all"},
		{[]string{"tail", "-o", "xml"}, true, "must be one of timeline, table, wide, json, ocsf"},
		{[]string{"query", "--path", ""}, true, "must not be empty"},
		{[]string{"query", "--addr", "example.org"}, true, "must be an address or a network"},
		{[]string{"query", "--process", "init"}, true, "PID@SEQ"},
		{[]string{"stats", "--top", "-1"}, true, "must not be negative"},
		{[]string{"tree", "--processes", "0"}, true, "must be above 0"},
		{[]string{"stats", "--dir", dir + "/none"}, false, "no audit directory"},
		{[]string{"tail", "--nonsense"}, true, "unknown flag"},
		{[]string{"ls", "extra"}, true, "unknown command"},
		{[]string{"lst"}, true, "unknown command"},
		{[]string{"tail", "--dir", dir + "/none"}, false, "no audit directory"},
		{[]string{"ls", "--dir", dir + "/none"}, false, "give it with --dir"},
		{[]string{"tail", "--dir", os.Args[0]}, false, "not a directory"},
	} {
		_, _, err := auditRun(t.Context(), tt.args...)
		if err == nil || errors.Is(err, errAuditUsage) != tt.usage || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want one with %q (usage: %v)", tt.args, err, tt.want, tt.usage)
		}
	}
}

// TestAuditTailProblems: what cannot be read is told, and makes the command fail; the rest is shown.
func TestAuditTailProblems(t *testing.T) {
	dir := auditStreams(t)
	path := stream.Dir(dir, audit.Identity{Namespace: "team-a", Pod: "other", PodUID: "u2", Container: "main"}) + "/00000001.ndjson"
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.WriteString(file, "{\"v\":\"\x1b[31m\"}\n"); err != nil {
		t.Fatal(err)
	}
	out, errs, err := auditRun(t.Context(), "tail", "--dir", dir)
	if strings.Count(out, "\n") != 5 || !strings.Contains(errs, "passed over: "+path) || err == nil {
		t.Errorf("error %v, stderr %q, stdout\n%s", err, errs, out)
	}
	if strings.Contains(errs, "\x1b") {
		t.Errorf("stderr has an escape: %q", errs)
	}
}

// TestAuditTailInterrupted: an interrupted tail -f has done what it was asked to.
func TestAuditTailInterrupted(t *testing.T) {
	var out interrupting
	errs, err := auditInto(t.Context(), &out, "tail", "-f", "-n", "1", "--dir", auditStreams(t))
	if text := out.text.String(); strings.Count(text, "\n") != 2 || errs != "" || err != nil {
		t.Errorf("error %v, stderr %q, stdout\n%s", err, errs, text)
	}
}

// interrupting interrupts this program, once, when all that there is has been written: a day and a record.
type interrupting struct {
	text strings.Builder
	done bool
}

func (w *interrupting) Write(p []byte) (int, error) {
	w.text.Write(p)
	if w.done || strings.Count(w.text.String(), "\n") < 2 {
		return len(p), nil
	}
	w.done = true
	return len(p), unix.Kill(os.Getpid(), unix.SIGINT)
}

func TestAuditList(t *testing.T) {
	dir := auditStreams(t)
	empty := audit.Identity{Namespace: "x", Pod: "empty", Container: "e"}
	w, err := stream.OpenWriter(stream.Dir(dir, empty), empty, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, errs, err := auditRun(t.Context(), "ls", "--dir", dir)
	var rows []string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	if err != nil || errs != "" || len(rows) != 4 || rows[0] != "NAMESPACE POD CONTAINER EVENTS SEGMENTS BYTES LAST" ||
		!strings.HasPrefix(rows[1], "default coder agent 3 1 ") || !strings.HasSuffix(rows[1], " 2026-11-21 10:31:07 UTC") ||
		!strings.HasPrefix(rows[2], "team-a other main 1 1 ") || rows[3] != "- x_empty_%- e 0 1 0 -" {
		t.Errorf("error %v, stderr %q, rows %q", err, errs, rows)
	}
	out, _, err = auditRun(t.Context(), "ls", "-o", "json", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	var first auditSummary
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&first); err != nil {
		t.Fatal(err)
	}
	if first.Pod != "coder" || first.PodUID != "u1" || first.ContainerID != "c1" || first.Events != 3 || first.Last.UnixNano() != auditMoment.Add(9*time.Millisecond).UnixNano() {
		t.Errorf("first stream is %+v", first)
	}
}
