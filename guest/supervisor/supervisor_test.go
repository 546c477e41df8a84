// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify/notifytest"
)

func TestAuditedOpen(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "session-1", "open", "3", "/etc/passwd")
	if out := finish(t, p, session); out != "ok=3 errno=0\n" {
		t.Fatalf("victim: %q", out)
	}
	if err := session.Err(); err != nil {
		t.Error(err)
	}
	first := s.sink.events[0]
	if first.Kind != audit.KindSyscall || first.Syscall.Syscall != "execve" || first.Syscall.Class != "exec" || first.Exec != "session-1" ||
		argOf(first, "argv").Value != victim(t)+" open 3 /etc/passwd" || int(first.Syscall.PID) != p.PID() {
		t.Errorf("first event %+v %+v, want the workload's execve", first, *first.Syscall)
	}
	opens := s.sink.calls("openat")
	if len(opens) != 3 {
		t.Fatalf("%d events of openat, want 3", len(opens))
	}
	got := *opens[1].Syscall
	want := audit.Syscall{
		PID: uint32(p.PID()), TID: uint32(p.PID()), PPID: uint32(os.Getpid()), Comm: "victim", Exe: victim(t),
		Syscall: "openat", Nr: unix.SYS_OPENAT, Arch: seccomp.NativeArch().Name(), Class: "file-read", RuleID: "file-read",
		Verdict: audit.VerdictAllowed,
	}
	args := []audit.Arg{
		{Name: "dirfd", Value: "AT_FDCWD", Evidence: audit.EvidenceRegister},
		{Name: "path", Value: "/etc/passwd", Evidence: audit.EvidencePeeked},
		{Name: "flags", Value: "O_RDONLY|O_CLOEXEC", Evidence: audit.EvidenceRegister},
	}
	if fmt.Sprint(got.Args) != fmt.Sprint(args) {
		t.Errorf("arguments %v, want %v", got.Args, args)
	}
	got.Args = nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("event\n%+v, want\n%+v", got, want)
	}
	stats := s.Stats()
	if stats.Audited != 4 || stats.Events != 4 || stats.Identities > 2 {
		t.Errorf("stats %+v", stats)
	}
	select {
	case <-session.Started():
	default:
		t.Error("not started")
	}
}

// What the launcher calls before the exec is its own, whatever the profile says of it, and no event.
func TestLauncherIsSilent(t *testing.T) {
	r := rules{unix.SYS_CLOSE: denied(unix.EPERM), unix.SYS_READ: killed, unix.SYS_FCNTL: audited("x"), unix.SYS_GETPPID: denied(unix.EACCES)}
	s := newStand(t, Options{Program: r})
	p := notifytest.Launch(t, []int{unix.SYS_EXECVE, unix.SYS_READ, unix.SYS_FCNTL, unix.SYS_GETPPID}, victim(t), "deny", "1")
	session, err := s.Attach(p.Listener, Leader{PID: p.PID()}, "")
	if err != nil {
		t.Fatal(err)
	}
	p.Arm()
	if out := finish(t, p, session); out != fmt.Sprintf("denied=1 errno=%d\n", unix.EACCES) {
		t.Errorf("victim: %q", out)
	}
	if first := s.sink.events[0].Syscall.Syscall; first != "execve" {
		t.Errorf("first event is %s", first)
	}
}

func TestFirstExecDenied(t *testing.T) {
	for name, tt := range map[string]struct {
		rules  rules
		leader int
		errno  unix.Errno
		rule   string
	}{
		"by a rule":            {rules{unix.SYS_EXECVE: denied(unix.ELOOP)}, 0, unix.ELOOP, "deny[0]"},
		"not from the leader":  {rules{}, 1, unix.EPERM, ruleLauncher},
		"rule, and the leader": {rules{unix.SYS_EXECVE: denied(unix.ELOOP)}, 1, unix.EPERM, ruleLauncher},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, Options{Program: tt.rules})
			p := notifytest.Launch(t, tt.rules.numbers(), victim(t), "open", "1", "/")
			session, err := s.Attach(p.Listener, Leader{PID: tt.leader}, "")
			if err != nil {
				t.Fatal(err)
			}
			p.Arm()
			if out := finish(t, p, session); out != "launcher: "+tt.errno.Error()+"\n" {
				t.Errorf("launcher: %q", out)
			}
			execs := s.sink.calls("execve")
			if len(execs) != 1 || execs[0].Syscall.Verdict != audit.VerdictDenied || execs[0].Syscall.RuleID != tt.rule ||
				execs[0].Syscall.Errno != unix.ErrnoName(tt.errno) {
				t.Errorf("events %+v", s.sink.events)
			}
			select {
			case <-session.Started():
				t.Error("started")
			default:
			}
		})
	}
}

func TestDeniedPtrace(t *testing.T) {
	r := rules{unix.SYS_PTRACE: denied(unix.EPERM)}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "ptrace")
	if out := finish(t, p, session); out != "ret=-1 errno=1\n" {
		t.Errorf("victim: %q", out)
	}
	calls := s.sink.calls("ptrace")
	if len(calls) != 1 {
		t.Fatalf("%d events, want 1", len(calls))
	}
	c := calls[0].Syscall
	if c.Verdict != audit.VerdictDenied || c.Errno != "EPERM" || c.RuleID != "deny[0]" || c.Origin != "test" || c.Count > 1 ||
		argOf(calls[0], "request").Value != "PTRACE_TRACEME" {
		t.Errorf("event %+v", c)
	}
	if got := s.Stats().Denials["deny[0]"]; got != 1 {
		t.Errorf("%d denials counted", got)
	}
}

// A denial with errno 0, which a pod's profile can say, returns 0 without running.
func TestDeniedWithoutErrno(t *testing.T) {
	r := rules{unix.SYS_PTRACE: denied(0)}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "ptrace")
	if out := finish(t, p, session); out != "ret=0 errno=0\n" {
		t.Errorf("victim: %q", out)
	}
	if calls := s.sink.calls("ptrace"); len(calls) != 1 || calls[0].Syscall.Errno != "" {
		t.Errorf("events %+v", calls)
	}
}

func TestKilled(t *testing.T) {
	for _, mode := range []string{"killed", "thread-killed"} {
		t.Run(mode, func(t *testing.T) {
			r := rules{unix.SYS_GETPPID: killed}
			s := newStand(t, Options{Program: r})
			p, session := s.run(t, r, "", mode)
			if out := finish(t, p, session); out != "signal=9\n" {
				t.Errorf("victim: %q", out)
			}
			calls := s.sink.calls("getppid")
			if len(calls) != 1 || calls[0].Syscall.Verdict != audit.VerdictKilled || calls[0].Syscall.Errno != "" || calls[0].Syscall.PID == uint32(p.PID()) {
				t.Errorf("events %+v", calls)
			}
			if isThread := mode != "killed"; len(calls) == 1 && isThread != (calls[0].Syscall.PID != calls[0].Syscall.TID) {
				t.Errorf("pid %d, tid %d", calls[0].Syscall.PID, calls[0].Syscall.TID)
			}
			if n := s.Stats().Killed; n != 1 {
				t.Errorf("%d kills counted", n)
			}
		})
	}
}

// A rule's kill that cannot be carried out: the caller must not go on as if it had only been denied.
func TestKillThatFails(t *testing.T) {
	r := rules{unix.SYS_GETPPID: killed}
	s := newStand(t, Options{Program: r})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	s.sink.hook = func(ev *audit.Event) {
		if ev.Syscall != nil && ev.Syscall.Verdict == audit.VerdictKilled {
			_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}) // no descriptor of the process is to be had
		}
	}
	p, session := s.run(t, r, "", "deny", "1")
	l := s.takeLoss(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if l.Reason != audit.LossSupervisor || !strings.Contains(l.Detail, "kill") {
		t.Errorf("loss %+v", l)
	}
	if out := finish(t, p, session); out != fmt.Sprintf("denied=1 errno=%d\n", unix.ENOSYS) {
		t.Errorf("victim: %q", out)
	}
}

// The exec of a thread that is no leader: its process goes on as the leader, another program.
func TestExecFromThread(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read"), unix.SYS_EXECVE: audited("exec")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "threadexec", "50", "/etc/passwd")
	if out := finish(t, p, session); out != "ok=50 errno=0\n" {
		t.Fatalf("victim: %q", out)
	}
	execs := s.sink.calls("execve")
	if len(execs) != 2 {
		t.Fatalf("%d execs, want 2", len(execs))
	}
	if c := execs[1].Syscall; c.PID != uint32(p.PID()) || c.TID == c.PID || c.Comm != "execer" {
		t.Errorf("the thread's exec: %+v", c)
	}
	opens := s.sink.calls("openat")
	// The last 50 are the new program's; not one of them may carry the old one's name.
	for i, ev := range opens[len(opens)-50:] {
		if c := ev.Syscall; c.Comm != "exe" || c.PID != uint32(p.PID()) || c.TID != c.PID {
			t.Fatalf("open %d after the exec: comm %q, pid %d, tid %d", i, c.Comm, c.PID, c.TID)
		}
	}
	for i, ev := range opens[:len(opens)-50] {
		if c := ev.Syscall; c.Comm != "victim" {
			t.Fatalf("open %d before the exec: comm %q", i, c.Comm)
		}
	}
}

func TestIdentityChanges(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "identity", "/etc/passwd")
	if out := finish(t, p, session); out != "ok=1\n" {
		t.Fatalf("victim: %q", out)
	}
	var got []string
	for _, ev := range s.sink.calls("openat") {
		got = append(got, fmt.Sprintf("%q %d:%d", ev.Syscall.Comm, ev.Syscall.UID, ev.Syscall.GID))
	}
	want := []string{`"victim" 0:0`, `"back\\sl\nash" 0:0`, `"back\\sl\nash" 1234:1235`}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("identities %v, want %v", got, want)
	}
}

// Children and threads whose names only their parent gave them: an event must never show another's.
func TestStorms(t *testing.T) {
	const n = 600
	for mode, prefix := range map[string]string{"forkstorm": "v", "threadstorm": "t"} {
		t.Run(mode, func(t *testing.T) {
			r := rules{unix.SYS_OPENAT: audited("file-read")}
			s := newStand(t, Options{Program: r})
			p, session := s.run(t, r, "", mode, fmt.Sprint(n), "/storm")
			if out := finish(t, p, session); out != "bad=0\n" {
				t.Fatalf("victim: %q", out)
			}
			checkStorm(t, s.sink.calls("openat"), n, prefix)
		})
	}
}

func checkStorm(t *testing.T, opens []audit.Event, n int, prefix string) {
	t.Helper()
	if len(opens) != n {
		t.Fatalf("%d events, want %d", len(opens), n)
	}
	for i, ev := range opens {
		name := fmt.Sprint(prefix, i)
		if ev.Syscall.Comm != name || argOf(ev, "path").Value != "/storm/"+name {
			t.Fatalf("event %d: comm %q opens %q", i, ev.Syscall.Comm, argOf(ev, "path").Value)
		}
	}
}

func TestSignalsMakeNoDuplicates(t *testing.T) {
	const n = 2000
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	s.sink.hook = func(*audit.Event) { time.Sleep(500 * time.Microsecond) } // let the timer strike while calls are pending
	p, session := s.run(t, r, "", "signals", fmt.Sprint(n), "/etc/passwd")
	if out := finish(t, p, session); out != fmt.Sprintf("ok=%d ticks=1\n", n) {
		t.Fatalf("victim: %q", out)
	}
	if got := len(s.sink.calls("openat")); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
}

func TestCloseWhileWaiting(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "wait", "1", "/etc/passwd")
	<-session.Started()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ended(t, session)
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := s.Attach(0, Leader{}, ""); !errors.Is(err, ErrClosed) {
		t.Errorf("Attach after Close: %v", err)
	}
	p.Kill()
}

// Calls after Close are refused by the kernel.
func TestCallsAfterClose(t *testing.T) {
	r := rules{unix.SYS_GETPPID: audited("x")}
	s := newStand(t, Options{Program: r})
	s.sink.hook = func(ev *audit.Event) {
		if ev.Syscall.Syscall != "execve" {
			return
		}
		go s.Close()
		for session := range s.sessions { // the one whose goroutine this is
			for !session.stoppedWithin(lastBackoff) {
			}
		}
	}
	p, session := s.run(t, r, "", "deny", "5")
	if out := finish(t, p, session); out != fmt.Sprintf("denied=5 errno=%d\n", unix.ENOSYS) {
		t.Errorf("victim: %q", out)
	}
}
