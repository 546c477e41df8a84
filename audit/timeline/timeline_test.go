// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/goldentest"
)

var (
	noon = time.Date(2026, 11, 21, 12, 0, 0, 7_000_000, time.UTC)
	who  = audit.Identity{Namespace: "team-a", Pod: "coder", Container: "agent"}
)

func syscall(name string, verdict audit.Verdict, args ...audit.Arg) *audit.Syscall {
	return &audit.Syscall{Syscall: name, Verdict: verdict, Args: args}
}

func register(v string) audit.Arg {
	return audit.Arg{Name: "x", Value: v, Evidence: audit.EvidenceRegister}
}
func peeked(name, v string) audit.Arg {
	return audit.Arg{Name: name, Value: v, Evidence: audit.EvidencePeeked}
}

func records() []*record.Record {
	denied := syscall("ptrace", audit.VerdictDenied, register("PTRACE_ATTACH"), register("41"))
	denied.Errno, denied.RuleID, denied.Origin = "EPERM", "no-ptrace", "baseline"
	folded := *denied
	folded.RuleID, folded.Count, folded.Until = "baseline/no-ptrace", 12345, noon.Add(time.Second)
	killed := syscall("init_module", audit.VerdictKilled)
	killed.Origin = "coder"
	pod := syscall("mount", audit.VerdictDenied)
	pod.Errno, pod.Origin = "ENOSYS", "pod"
	cut := peeked("pathname", "/long")
	cut.Truncated = true
	events := []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{SeccompMode: 2, FilterDigest: "3f9c0c1e3f9c0c1e", NoNewPrivs: true,
			Limits: []audit.ReceiptLimit{{Name: "pids", Asked: "256", Found: "256"}, {Name: "memory", Asked: "2Gi", BestEffort: true}}}},
		{Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		{Kind: audit.KindTiming, Timing: &audit.Timing{Laps: []audit.Lap{{Phase: "resolve", Duration: 2_004_999}, {Phase: "delegate", Offset: 2_004_999, Duration: 120 * time.Millisecond}}}},
		{Kind: audit.KindSyscall, Syscall: syscall("execve", audit.VerdictAllowed, peeked("pathname", "/usr/bin/python3"), peeked("argv", "python3 agent.py"))},
		{Kind: audit.KindSyscall, Syscall: syscall("openat", audit.VerdictAllowed, register("AT_FDCWD"), cut, register("O_WRONLY|O_CREAT"))},
		{Kind: audit.KindSyscall, Syscall: syscall("connect", audit.VerdictAllowed, register("3"), peeked("addr", "10.0.0.1:80"))},
		{Kind: audit.KindSyscall, Syscall: syscall("connect", audit.VerdictAllowed, register("3"), peeked("addr", "unix:/run/x"))},
		{Kind: audit.KindSyscall, Syscall: denied},
		{Kind: audit.KindSyscall, Syscall: &folded},
		{Kind: audit.KindSyscall, Syscall: killed},
		{Kind: audit.KindSyscall, Syscall: pod},
		{Kind: audit.KindExec, Exec: strings.Repeat("0123456789abcdef", 4), ExecStart: &audit.ExecStart{Argv: []string{"sh", "-c", "ls \"/\"", ""}, Truncated: true}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: "update", Resource: "memory", Requested: "8Gi", Ceiling: "2Gi", Applied: "2Gi"}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{Count: 2, MemoryLimit: 1 << 30}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossTorn, Bytes: 99}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 3, OnLoss: "kill", Detail: "no space left on device"}},
		{Kind: audit.KindExit, Exec: "probe", Exit: &audit.Exit{Status: 0}},
		{Kind: audit.KindExit, Exit: &audit.Exit{Status: 137, Signal: "SIGKILL", Cause: audit.CauseOOM}},
		{Kind: audit.KindEnd, End: &audit.End{Records: 17, Bytes: 9000, Calls: 12345, Denied: 12340}},
		{Kind: audit.KindEnd, End: &audit.End{Records: 2, Losses: 1, Missing: 7}},
		{Kind: "newer"},
		{Kind: audit.KindSyscall, Time: noon.Add(13 * time.Hour), Syscall: syscall("unlink\x1b[2J", audit.VerdictAllowed,
			peeked("pathname", "/tmp/\x1b]0;owned\a\r\n12:00:00.000 x \u202egnp.exe \xff \"quoted\\"), peeked("argv", "'\x1b[31m'"))},
	}
	out := make([]*record.Record, len(events))
	for i, e := range events {
		if e.Time.IsZero() {
			e.Time = noon.Add(time.Duration(i) * time.Millisecond)
		}
		out[i] = &record.Record{Seq: uint64(i + 1), Identity: who, Event: e}
	}
	return out
}

func TestTimelineGolden(t *testing.T) {
	for name, p := range map[string]interface {
		Append([]byte, *record.Record) []byte
	}{"plain": &timeline.Printer{}, "color": &timeline.Printer{Color: true}, "table": &timeline.Table{}, "wide": &timeline.Table{Wide: true}} {
		var got []byte
		for _, r := range records() {
			got = p.Append(got, r)
		}
		goldentest.Equal(t, "testdata/"+name+".txt", got)
	}
}

// FuzzTimeline: whatever the workload put into a record, its line is one line of printable text.
func FuzzTimeline(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\nb", "\xff", "\u202e", "\u009b", "\"\\", strings.Repeat("ü", 20)} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, flag bool) {
		evidence := audit.EvidencePeeked
		if flag {
			evidence = audit.EvidenceRegister
		}
		id := audit.Identity{Namespace: s, Pod: s, Container: s}
		p, table := timeline.Printer{}, timeline.Table{Wide: true}
		p.Append(nil, &record.Record{})     // the day
		table.Append(nil, &record.Record{}) // the heading
		for _, e := range []audit.Event{
			{Kind: audit.KindSyscall, Exec: s, Syscall: &audit.Syscall{Syscall: s, Verdict: audit.Verdict(s), Errno: s, RuleID: s, Origin: s,
				Args: []audit.Arg{{Value: s, Evidence: evidence}, {Name: "argv", Value: s, Evidence: evidence}}, Count: 2}},
			{Kind: audit.KindStart, Receipt: &audit.Receipt{SeccompMode: 2, FilterDigest: s, Limits: []audit.ReceiptLimit{{Name: s, Asked: s}, {Name: s, Found: s}}}},
			{Kind: audit.KindTiming, Timing: &audit.Timing{Laps: []audit.Lap{{Phase: s, Duration: -1 << 63}}}},
			{Kind: audit.KindExec, ExecStart: &audit.ExecStart{Argv: []string{s, s}}},
			{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: s, Resource: s, Requested: s, Ceiling: s, Applied: s}},
			{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: s, OnLoss: s, Detail: s}},
			{Kind: audit.KindExit, Exit: &audit.Exit{Signal: s, Cause: s}},
			{Kind: audit.Kind("x" + s)},
		} {
			r := &record.Record{Identity: id, Event: e}
			isLine(t, p.Append(nil, r))
			isLine(t, table.Append(nil, r))
		}
	})
}

// isLine fails unless text is one line that can be printed.
func isLine(t *testing.T, text []byte) {
	t.Helper()
	body, ok := strings.CutSuffix(string(text), "\n")
	if !ok || !utf8.ValidString(body) {
		t.Fatalf("not a line of text: %q", text)
	}
	for _, r := range body {
		if !audit.Printable(r) {
			t.Fatalf("%U in %q", r, body)
		}
	}
}
