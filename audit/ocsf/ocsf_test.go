// SPDX-License-Identifier: Apache-2.0

package ocsf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/internal/goldentest"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 7_000_001, time.UTC)

func peeked(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidencePeeked}
}

func register(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidenceRegister}
}

func called(name, class string, verdict audit.Verdict, args ...audit.Arg) audit.Event {
	s := &audit.Syscall{
		PID: 41, TID: 42, PPID: 1, UID: 1000, GID: 1001, Comm: "python3", Exe: "/usr/bin/python3.13",
		Syscall: name, Nr: 257, Arch: "SCMP_ARCH_X86_64", Args: args, Class: class, Verdict: verdict,
	}
	if verdict != audit.VerdictAllowed {
		s.Errno, s.RuleID, s.Origin = "EPERM", "no-"+name, "baseline"
	}
	return audit.Event{Time: noon, Kind: audit.KindSyscall, Syscall: s}
}

// events has at least one record of each row of the mapping.
func events() []audit.Event {
	at := register("dirfd", "AT_FDCWD")
	path := peeked("path", "/work/a b\x1b[2J")
	flags := func(f string) audit.Arg { return register("flags", f) }
	folded := called("ptrace", "process", audit.VerdictDenied, register("request", "PTRACE_ATTACH"), register("pid", "7"))
	folded.Syscall.Count, folded.Syscall.Until = 19996, noon.Add(time.Second)
	inSession := called("execve", "exec", audit.VerdictAllowed, peeked("path", "/bin/ls"), peeked("argv", "ls '/x y'"))
	inSession.Exec = "0123456789abcdef"
	sparse := called("", "", "", register("addr", "0x0"))
	sparse.Syscall.PID, sparse.Syscall.Exe, sparse.Syscall.PPID, sparse.Syscall.Comm = 0, "", 0, ""
	list := []audit.Event{
		{Kind: audit.KindStart, Receipt: &audit.Receipt{
			Version: "0.1.0", Kernel: "6.18.0", Placement: "host", Delegate: "io.containerd.runc.v2", Image: "docker.io/library/agent:1",
			PID: 4711, SeccompMode: 2, Filters: 1, FilterDigest: "3f9c", NoNewPrivs: true, OnLoss: "kill",
			Limits: []audit.ReceiptLimit{{Name: "pids", Asked: "256", Found: "256"}, {Name: "memoryHigh", Asked: "1800Mi", BestEffort: true}},
		}},
		{Kind: audit.KindStart, Receipt: &audit.Receipt{}},
		called("execve", "exec", audit.VerdictAllowed, peeked("path", "/usr/bin/git"), peeked("argv", "git clone x")),
		inSession,
		called("execveat", "exec", audit.VerdictAllowed, register("path", "0x7ffe (unreadable)")),
		called("clone3", "fork", audit.VerdictAllowed, peeked("flags", "CLONE_VFORK")),
		called("setuid", "privilege", audit.VerdictDenied, register("uid", "0")),
		called("kill", "process", audit.VerdictAllowed, register("pid", "7"), register("signal", "SIGKILL")),
		called("kill", "process", audit.VerdictAllowed, register("pid", "-1"), register("signal", "SIGKILL")),
		called("kill", "process", audit.VerdictAllowed, register("pid", "7"), register("signal", "SIGCHLD")),
		folded,
		called("process_vm_readv", "process", audit.VerdictKilled, register("pid", "7")),
		called("process_vm_writev", "process", audit.VerdictDenied, register("pid", "7")),
		called("mmap", "memory", audit.VerdictAllowed, register("addr", "0x7f0000000000"), register("length", "4096")),
		called("mprotect", "memory", audit.VerdictAllowed, register("addr", "0x7f0000000000"), register("length", "18446744073709551615")),
		called("openat", "file-write", audit.VerdictAllowed, at, path, flags("O_WRONLY|O_CREAT|O_TRUNC"), register("mode", "0644")),
		called("openat", "file-write", audit.VerdictAllowed, at, path, flags("O_WRONLY|O_TRUNC")),
		called("openat", "file-read", audit.VerdictDenied, at, peeked("path", "etc/sha\xffdow"), flags("O_RDONLY")),
		called("openat", "file-read", audit.VerdictAllowed, at, register("path", "NULL"), flags("O_RDONLY")),
		called("mkdir", "file-write", audit.VerdictAllowed, path),
		called("truncate", "file-write", audit.VerdictAllowed, path),
		called("rmdir", "file-delete", audit.VerdictAllowed, peeked("path", "/")),
		called("renameat2", "file-delete", audit.VerdictAllowed, peeked("from", "/a"), peeked("to", "/b")),
		called("chmod", "file-attr", audit.VerdictAllowed, path),
		called("setxattr", "file-attr", audit.VerdictAllowed, path),
		called("mount", "mount", audit.VerdictDenied, peeked("source", "tmpfs"), peeked("target", "/mnt")),
		called("umount2", "mount", audit.VerdictDenied, peeked("target", "/mnt")),
		called("connect", "net", audit.VerdictDenied, peeked("addr", "10.0.0.1:443")),
		called("connect", "net", audit.VerdictAllowed, peeked("addr", "[fe80::1%2]:443")),
		called("connect", "net", audit.VerdictAllowed, peeked("addr", "unix:/run/docker.sock")),
		called("sendto", "net", audit.VerdictAllowed, peeked("addr", "[::ffff:10.0.0.1]:53")),
		called("sendmsg", "net", audit.VerdictAllowed),
		called("accept4", "net", audit.VerdictAllowed),
		called("bind", "net", audit.VerdictAllowed, peeked("addr", "0.0.0.0:8080")),
		called("listen", "net", audit.VerdictAllowed),
		called("bpf", "", audit.VerdictDenied, register("cmd", "BPF_PROG_LOAD")),
		called("ftruncate", "file-write", audit.VerdictAllowed, register("fd", "3")),
		sparse,
		{Kind: audit.KindExec, Exec: "0123456789abcdef", ExecStart: &audit.ExecStart{PID: 77, Argv: []string{"sh", "-c", "ls /\u202e"}, Truncated: true}},
		{Kind: audit.KindExec, ExecStart: &audit.ExecStart{}},
		{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: "create", Resource: "memory", Requested: "8Gi", Ceiling: "2Gi", Applied: "2Gi"}},
		{Kind: audit.KindOOM, OOM: &audit.OOM{Count: 2, MemoryLimit: 1 << 30}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossShim, Count: 12, Bytes: 100, OnLoss: "kill", Detail: "killed"}},
		{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossNode, From: noon, Until: noon.Add(time.Minute), FlushInterval: time.Second}},
		{Kind: audit.KindExit, Exec: "0123456789abcdef", Exit: &audit.Exit{Status: 1}},
		{Kind: audit.KindExit, Exit: &audit.Exit{Status: 137, Signal: "SIGKILL", Cause: audit.CauseOOM}},
		{Kind: audit.KindExit, Exit: &audit.Exit{}},
		{Kind: "newer"},
	}
	for i := range list {
		list[i].Time = noon
	}
	return list
}

func recordOf(i int, e audit.Event) *record.Record {
	return &record.Record{Seq: uint64(i + 1), Event: e, Chain: "c0ffee", Identity: audit.Identity{
		Node: "node-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d",
		Container: "agent", ContainerID: "9f3c0c1e", Profile: "coder", ProfileDigest: "77aa",
	}}
}

func decodeEvent(t testing.TB, line []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	var event map[string]any
	if err := dec.Decode(&event); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return event
}

// TestSchema: whatever a record is, its events are OCSF's by OCSF's own schema, and each row of the mapping has a record here.
func TestSchema(t *testing.T) {
	s := loadSchema(t)
	seen := map[*mappingRow]bool{}
	for i, e := range events() {
		seen[rowOf(&e)] = true
		for _, r := range []*record.Record{recordOf(i, e), {Seq: 1, Event: e}} {
			n := 0
			for line := range bytes.Lines(Append(nil, r)) {
				n++
				for _, problem := range s.check(decodeEvent(t, line)) {
					t.Errorf("record %d: %s\n%.2000s", i+1, problem, line)
				}
			}
			if two := e.Syscall != nil && e.Syscall.Verdict != audit.VerdictAllowed; n != 1 && !two || n != 2 && two {
				t.Errorf("record %d becomes %d events", i+1, n)
			}
		}
	}
	for i := range mapping {
		if row := &mapping[i]; !seen[row] {
			t.Errorf("no record here is one of the row %v %v %s", row.Kind, row.Calls, row.When)
		}
	}
}

// TestChecker: the check is one. What it finds in an event that was spoilt is what was spoilt.
func TestChecker(t *testing.T) {
	s := loadSchema(t)
	line := Append(nil, recordOf(0, called("connect", "net", audit.VerdictAllowed, peeked("addr", "10.0.0.1:443"))))
	for _, tt := range []struct{ old, new, want string }{
		{`"severity_id":1`, `"severity_id":7`, "none of its values"},
		{`"severity":"Informational"`, `"severity":"High"`, "its name says"},
		{`"severity_id":1,`, ``, "severity_id: required"},
		{`"severity_id":1`, `"severity_id":"1"`, "not of integer_t"},
		{`"time":`, `"thyme":`, "no such attribute"},
		{`"class_uid":4001`, `"class_uid":4000`, "not known"},
		{`"ip":"10.0.0.1"`, `"ip":"10.0.0"`, "does not fit"},
		{`"port":443`, `"port":65536`, "is not in"},
		{`"src_endpoint":{"name":"team-a/coder"}`, `"src_endpoint":{}`, "at_least_one"},
		{`"security_control"`, `"cloud"`, "only with profile"},
		{`"security_control"`, `"nonsense"`, "none of the class"},
		{`"profiles":[`, `"profiles":"x","labels":[`, "a list"},
	} {
		spoilt := strings.Replace(string(line), tt.old, tt.new, 1)
		if spoilt == string(line) {
			t.Errorf("the event has no %s: %s", tt.old, line)
		}
		if problems := fmt.Sprint(s.check(decodeEvent(t, []byte(spoilt)))); !strings.Contains(problems, tt.want) {
			t.Errorf("%s: found %s, want %s", tt.new, problems, tt.want)
		}
	}
}

func TestGolden(t *testing.T) {
	var got bytes.Buffer
	for i, e := range events() {
		for line := range bytes.Lines(Append(nil, recordOf(i, e))) {
			if err := json.Indent(&got, line, "", "  "); err != nil {
				t.Fatal(err)
			}
		}
	}
	goldentest.Equal(t, "testdata/events.json", got.Bytes())
}

// FuzzAppend: whatever the workload put into a record, its events are lines of printable text, and OCSF's.
func FuzzAppend(f *testing.F) {
	s := loadSchema(f)
	for _, seed := range []string{"plain", "\x1b[2J", "a\nb", "\xff", "\u202e", "10.0.0.1:80", "$'", "-1", "O_CREAT", ""} {
		f.Add(seed, seed, uint8(3))
	}
	all := events()
	f.Fuzz(func(t *testing.T, a, b string, which uint8) {
		e := all[int(which)%len(all)]
		e.Exec = a
		if e.Syscall != nil {
			c := *e.Syscall
			c.Exe, c.Comm, c.RuleID, c.Errno, c.Class, c.Arch = a, b, a, b, a, b
			c.Args = nil
			for _, arg := range e.Syscall.Args {
				arg.Value = a
				c.Args = append(c.Args, arg)
			}
			e.Syscall = &c
		}
		r := &record.Record{Seq: 1, Event: e, Chain: b, Identity: audit.Identity{Node: a, Namespace: b, Pod: a, PodUID: b, Container: a, ContainerID: b, Profile: a, ProfileDigest: b}}
		for line := range bytes.Lines(Append(nil, r)) {
			text := bytes.TrimSuffix(line, []byte("\n"))
			if !utf8.Valid(text) {
				t.Fatalf("not UTF-8: %q", text)
			}
			for _, c := range string(text) {
				if !audit.Printable(c) {
					t.Fatalf("%U in %q", c, text)
				}
			}
			for _, problem := range s.check(decodeEvent(t, line)) {
				t.Errorf("%s\n%.2000s", problem, line)
			}
		}
	})
}

const reference = "../../docs/ocsf.md"

// TestReference holds the published table to the code's; -update writes it.
func TestReference(t *testing.T) {
	var table strings.Builder
	table.WriteString("| kind | calls | when | class | activity |\n|---|---|---|---|---|\n")
	for _, row := range append(slices.Clone(mapping), findingRow()) {
		names := ""
		if row.Calls != nil {
			names = "`" + strings.Join(row.Calls, "` `") + "`"
		} else if row.Kind == audit.KindSyscall && row.When == "" {
			names = "all others"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s (%d) | %s (%d) |\n", row.Kind, names, row.When, row.Class.Name, row.Class.UID, row.Activity.Name, row.Activity.ID)
	}
	goldentest.Section(t, reference, "mapping", table.String())
}
