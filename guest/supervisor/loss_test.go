// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

// takeLoss waits for the one report of a loss.
func (s *stand) takeLoss(t *testing.T) audit.Loss {
	t.Helper()
	select {
	case l := <-s.loss:
		return l
	case <-time.After(patience):
		t.Fatal("OnLoss was not called")
	}
	return audit.Loss{}
}

func (s *stand) noLoss(t *testing.T) {
	t.Helper()
	select {
	case l := <-s.loss:
		t.Errorf("OnLoss was called: %+v", l)
	case <-time.After(20 * time.Millisecond):
	}
}

// failAfterStart makes the sink fail from the first event after the exec.
func (s *stand) failAfterStart() {
	s.sink.hook = func(ev *audit.Event) {
		if ev.Syscall != nil && ev.Syscall.Syscall != "execve" {
			s.sink.hook = nil
			s.sink.set(errSink)
		}
	}
}

func TestSinkRecovers(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r, StallTimeout: time.Minute})
	s.failAfterStart()
	p, session := s.run(t, r, "", "open", "20", "/etc/passwd")
	eventually(t, "the sink refuses", func() bool { _, refused := s.sink.count(); return refused > 3 })
	if n := len(s.sink.calls("openat")); n != 0 {
		t.Errorf("%d opens went on", n)
	}
	s.sink.set(nil)
	if out := finish(t, p, session); out != "ok=20 errno=0\n" {
		t.Errorf("victim: %q", out)
	}
	if n := len(s.sink.calls("openat")); n != 20 {
		t.Errorf("%d events, want 20", n)
	}
	if l := s.sink.losses(); len(l) != 0 {
		t.Errorf("losses %+v", l)
	}
	if st := s.Stats(); st.Stalls != 1 || st.Lost != 0 {
		t.Errorf("stats %+v", st)
	}
	s.noLoss(t)
}

// onLoss kill: the audited call never runs, its process dies, and OnLoss is called once.
func TestSinkNeverRecoversKill(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r, StallTimeout: 50 * time.Millisecond})
	s.failAfterStart()
	p, session := s.run(t, r, "", "open", "20", "/etc/passwd")
	if out := finish(t, p, session); out != "" {
		t.Errorf("victim: %q", out)
	}
	if got := p.State().String(); got != "signal: killed" {
		t.Errorf("victim ended with %s", got)
	}
	if l := s.takeLoss(t); l.Reason != audit.LossStream || l.Count != 1 || l.OnLoss != "kill" || l.Detail != errSink.Error() {
		t.Errorf("loss %+v", l)
	}
	// The loss is final, for every session of the container, also when the sink works again.
	s.sink.set(nil)
	p, session = s.run(t, r, "late", "open", "1", "/etc/passwd")
	if out := finish(t, p, session); out != "" {
		t.Errorf("late victim: %q", out)
	}
	s.noLoss(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if l := s.sink.losses(); len(l) != 1 || l[0].Count != 2 || l[0].OnLoss != "kill" {
		t.Errorf("losses %+v, want one record of 2 events", l)
	}
	if st := s.Stats(); st.Lost != 2 || st.Unrecorded != 0 {
		t.Errorf("stats %+v", st)
	}
}

// onLoss continue: calls go on after one timeout, and what is missing is counted in the stream.
func TestSinkNeverRecoversContinue(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r, StallTimeout: 250 * time.Millisecond, Continue: true})
	s.failAfterStart()
	p, session := s.run(t, r, "", "open", "20", "/etc/passwd")
	if out := finish(t, p, session); out != "ok=20 errno=0\n" {
		t.Errorf("victim: %q", out)
	}
	if n := s.Stats().Stalls; n > 1 {
		t.Errorf("%d calls waited, want the first alone", n)
	}
	if l := s.takeLoss(t); l.OnLoss != "continue" {
		t.Errorf("loss %+v", l)
	}
	s.noLoss(t)
	s.sink.set(nil)
	p, session = s.run(t, r, "late", "open", "3", "/etc/passwd")
	finish(t, p, session)
	if l := s.sink.losses(); len(l) != 1 || l[0].Count != 20 || l[0].Reason != audit.LossStream || l[0].OnLoss != "continue" {
		t.Errorf("losses %+v, want one record of 20 events", l)
	}
	if n := len(s.sink.calls("openat")); n != 3 {
		t.Errorf("%d events after the recovery, want 3", n)
	}
}

// Denials do not wait for the sink, and none is lost if it recovers.
func TestDenialsWhileSinkFails(t *testing.T) {
	r := rules{unix.SYS_GETPPID: denied(unix.EPERM)}
	s := newStand(t, Options{Program: r, StallTimeout: time.Minute})
	s.failAfterStart()
	p, session := s.run(t, r, "", "deny", "100")
	if out := p.Wait(); out != "denied=100 errno=1\n" {
		t.Errorf("victim: %q", out)
	}
	ended(t, session)
	s.sink.set(nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The session ended before the recovery: a loss with the exact count.
	if l := s.sink.losses(); len(l) != 1 || l[0].Count != 100 || s.sink.folded != 0 {
		t.Errorf("losses %+v, %d still folded; want 100 in one record", l, s.sink.folded)
	}
	s.noLoss(t)
}

// A stalled call's process can be killed, which ends the stall and makes no event.
func TestKilledWhileStalled(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r, StallTimeout: time.Minute})
	s.failAfterStart()
	p, session := s.run(t, r, "", "open", "20", "/etc/passwd")
	eventually(t, "the sink refuses", func() bool { _, refused := s.sink.count(); return refused > 0 })
	p.Kill()
	finish(t, p, session)
	if st := s.Stats(); st.Vanished == 0 || st.Lost != 0 {
		t.Errorf("stats %+v", st)
	}
}

// A session is stopped while its call is stalled: the call is refused, and nothing is missing.
func TestCloseWhileStalled(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r, StallTimeout: time.Minute})
	s.failAfterStart()
	p, session := s.run(t, r, "", "open", "2", "/etc/passwd")
	eventually(t, "the sink refuses", func() bool { _, refused := s.sink.count(); return refused > 0 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out := finish(t, p, session); out != fmt.Sprintf("ok=0 errno=%d\n", unix.ENOSYS) {
		t.Errorf("victim: %q", out)
	}
	if st := s.Stats(); st.Lost != 0 || st.Audited != 1 {
		t.Errorf("stats %+v", st)
	}
}

type panics struct{ rules }

func (p panics) Decide(d *seccomp.Data) seccomp.Decision {
	if d.Nr == unix.SYS_GETPPID {
		panic("a mistake of ours")
	}
	return p.rules.Decide(d)
}

// A mistake of ours closes the listener and is a loss; the shim lives.
func TestPanicFailsClosed(t *testing.T) {
	r := panics{rules{unix.SYS_GETPPID: audited("x")}}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r.rules, "", "deny", "3")
	if out := finish(t, p, session); out != fmt.Sprintf("denied=3 errno=%d\n", unix.ENOSYS) {
		t.Errorf("victim: %q", out)
	}
	if session.Err() == nil {
		t.Error("the session has no error")
	}
	if l := s.takeLoss(t); l.Reason != audit.LossSupervisor || l.OnLoss != "kill" {
		t.Errorf("loss %+v", l)
	}
	if l := s.sink.losses(); len(l) != 1 || l[0].Reason != audit.LossSupervisor {
		t.Errorf("losses %+v", l)
	}
}

// A page that never comes stalls the session that reads it, and no other.
func TestFaultStallsOnlyItself(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	stuck, stuckSession := s.run(t, r, "stuck", "fault")
	<-stuckSession.Started()
	eventually(t, "the stuck session is in its read", func() bool { return inState(stuck.PID(), "seccomp") })
	p, session := s.run(t, r, "free", "open", "100", "/etc/passwd")
	if out := finish(t, p, session); out != "ok=100 errno=0\n" {
		t.Errorf("victim: %q", out)
	}
	if err := s.Close(); err == nil { // and it returns, though the session is stuck for as long as its process lives
		t.Errorf("Close says nothing of a stuck session")
	}
	stuck.Kill()
	if out := finish(t, stuck, stuckSession); out != "ready\n" {
		t.Errorf("victim: %q", out)
	}
	if n := len(s.sink.calls("openat")); n != 100 {
		t.Errorf("%d events, want 100", n)
	}
}

// stuck is a sink on a disk that hangs, until it is told to go on.
type stuck struct{ began, goOn chan struct{} }

func (s *stuck) Append(*audit.Event) error {
	close(s.began)
	<-s.goOn
	return nil
}

// TestStatsWhileTheDiskHangs: who asks for the counters does not wait for the stream.
func TestStatsWhileTheDiskHangs(t *testing.T) {
	sink := &stuck{make(chan struct{}), make(chan struct{})}
	s, err := New(Options{Program: rules{}, Sink: sink})
	if err != nil {
		t.Fatal(err)
	}
	s.loss.add(audit.LossStream, "test", 3, 0)
	recorded, stats := make(chan error, 1), make(chan Stats, 1)
	go func() { recorded <- s.recordLoss() }()
	<-sink.began
	go func() { stats <- s.Stats() }()
	select {
	case st := <-stats:
		if st.Unrecorded != 3 {
			t.Errorf("%+v", st)
		}
	case <-time.After(patience):
		t.Error("it waits for the disk")
	}
	close(sink.goOn)
	if err := <-recorded; err != nil || s.Stats().Unrecorded != 0 {
		t.Errorf("%v, %+v", err, s.Stats())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
