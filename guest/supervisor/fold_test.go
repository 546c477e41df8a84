// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
)

func TestFloodIsFolded(t *testing.T) {
	const n = 200_000
	r := rules{unix.SYS_GETPPID: denied(unix.EPERM), unix.SYS_OPENAT: audited("file-read")}
	s := newStand(t, Options{Program: r})
	began := time.Now()
	p, session := s.run(t, r, "", "deny", fmt.Sprint(n))
	// Another session of the container is served meanwhile.
	other, otherSession := s.run(t, r, "other", "open", "200", "/etc/passwd")
	if out := finish(t, other, otherSession); out != "ok=200 errno=0\n" {
		t.Errorf("other: %q", out)
	}
	if out := finish(t, p, session); out != fmt.Sprintf("denied=%d errno=1\n", n) {
		t.Fatalf("victim: %q", out)
	}
	seconds := int(time.Since(began)/time.Second) + 1
	calls := s.sink.calls("getppid")
	if got := total(calls); got != n {
		t.Errorf("records stand for %d denials, want %d", got, n)
	}
	if most := foldBurst + 3*seconds; len(calls) > most {
		t.Errorf("%d records in %d s, want at most %d", len(calls), seconds, most)
	}
	for i, ev := range calls {
		c := ev.Syscall
		if i < foldBurst && c.Count > 1 {
			t.Errorf("record %d is folded already", i)
		}
		if c.RuleID != "deny[0]" || c.Verdict != audit.VerdictDenied || c.Errno != "EPERM" || c.Comm != "victim" {
			t.Errorf("record %d: %+v", i, c)
		}
		if c.Count > 1 && !c.Until.After(ev.Time) {
			t.Errorf("record %d: from %v until %v", i, ev.Time, c.Until)
		}
	}
	if st := s.Stats(); st.Denials["deny[0]"] != n || st.Folded == 0 || s.sink.folded != 0 {
		t.Errorf("stats %+v, %d still folded", st, s.sink.folded)
	}
	t.Logf("%d denials in %v: %d records", n, time.Since(began), len(calls))
}

func newTestSession(sink Sink) *Session {
	sup := &Supervisor{opts: Options{Sink: sink, StallTimeout: time.Hour}}
	sup.foldSink, _ = sink.(FoldSink)
	return &Session{sup: sup, folds: newFolds(sup.foldSink)}
}

func key(i int) foldKey { return foldKey{rule: fmt.Sprint("rule ", i)} }

func TestFoldBucket(t *testing.T) {
	sink := &recorder{}
	s := newTestSession(sink)
	now := time.Now()
	deny := func(at time.Time, i int) bool {
		f, single := s.folds.hit(key(i), at)
		if !single {
			s.folds.add(f, at, &audit.Syscall{Syscall: "x", RuleID: key(i).rule, Args: []audit.Arg{{Name: "a", Value: at.String()}}})
		}
		return single
	}
	for i := range foldBurst {
		if !deny(now, 0) {
			t.Fatalf("denial %d is not single", i)
		}
	}
	for i := range 3 {
		if deny(now.Add(time.Duration(i)*time.Millisecond), 0) {
			t.Fatal("a denial of a flood is single")
		}
	}
	s.flush(now.Add(foldWindow/2), false)
	if len(sink.events) != 0 {
		t.Fatal("flushed early")
	}
	s.flush(now.Add(foldWindow), false)
	if len(sink.events) != 1 || sink.events[0].Syscall.Count != 3 || !sink.events[0].Time.Equal(now) ||
		!sink.events[0].Syscall.Until.Equal(now.Add(2*time.Millisecond)) || argOf(sink.events[0], "a").Value != now.String() {
		t.Fatalf("events %+v", sink.events)
	}
	// One token a second, eight at most.
	if !deny(now.Add(foldRefill), 0) || deny(now.Add(foldRefill), 0) {
		t.Error("not one token after a second")
	}
	for i := range foldBurst {
		if !deny(now.Add(time.Hour), 0) {
			t.Errorf("denial %d after an hour is not single", i)
		}
	}
	if deny(now.Add(time.Hour), 0) {
		t.Error("more than a full bucket")
	}
}

func TestFoldTableIsBounded(t *testing.T) {
	sink := &recorder{}
	s := newTestSession(sink)
	now := time.Now()
	single := 0
	const keys, each = 5 * maxFolds, 3
	for range each {
		for i := range keys {
			f, one := s.folds.hit(key(i), now)
			if one {
				single++
			} else {
				s.folds.add(f, now, &audit.Syscall{Syscall: "x", RuleID: key(i).rule})
			}
		}
	}
	if len(s.folds.byKey) != maxFolds {
		t.Errorf("%d keys, want %d", len(s.folds.byKey), maxFolds)
	}
	s.flush(now, true)
	if got := int(total(sink.events)) + single; got != keys*each {
		t.Errorf("%d denials are told, want %d", got, keys*each)
	}
	if ev := sink.events[0].Syscall; len(sink.events) != 1 || ev.Syscall != otherSyscall || ev.RuleID != "" {
		t.Errorf("events %+v", sink.events)
	}
	// Idle keys make room.
	if _, one := s.folds.hit(key(-1), now.Add(time.Hour)); !one {
		t.Error("no room although all keys are idle")
	}
}

// What cannot be written stays, and is written later.
func TestFoldSurvivesSink(t *testing.T) {
	sink := &recorder{fail: errSink}
	s := newTestSession(sink)
	now := time.Now()
	for range 10 + foldBurst {
		if f, single := s.folds.hit(key(0), now); !single {
			s.folds.add(f, now, &audit.Syscall{Syscall: "x"})
		}
	}
	s.flush(now.Add(foldWindow), false)
	s.flush(now.Add(2*foldWindow), false)
	if sink.refused != 2 || s.folds.waiting != 10 || sink.folded != 10 {
		t.Fatalf("refused %d times, %d waiting, %d counted", sink.refused, s.folds.waiting, sink.folded)
	}
	sink.fail = nil
	s.flush(now.Add(3*foldWindow), false)
	if len(sink.events) != 1 || sink.events[0].Syscall.Count != 10 || s.folds.waiting != 0 || sink.folded != 0 {
		t.Errorf("events %+v, %d waiting, %d counted", sink.events, s.folds.waiting, sink.folded)
	}
	if s.folds.timeout() >= 0 {
		t.Error("a timer runs for nothing")
	}
}

// waiting is a sink as the supervisor in the container has it: an audited call waits for the host, and a denial finds no room.
type waiting struct {
	*recorder
	release chan struct{}
}

func (w *waiting) Append(ev *audit.Event) error {
	if ev.Syscall.Syscall != "execve" {
		<-w.release
	}
	return w.recorder.Append(ev)
}

// Denials do not wait for a sink that makes audited calls wait, nor are they lost.
func TestDenialsDoNotWait(t *testing.T) {
	r := rules{unix.SYS_OPENAT: audited("file-read"), unix.SYS_GETPPID: denied(unix.EPERM)}
	sink := &waiting{recorder: &recorder{}, release: make(chan struct{})}
	s := newStand(t, Options{Program: r, Sink: sink})
	stuck, stuckSession := s.run(t, r, "stuck", "open", "1", "/etc/passwd")
	<-stuckSession.Started()
	p, session := s.run(t, r, "free", "deny", "100")
	if out := finish(t, p, session); out != "denied=100 errno=1\n" {
		t.Errorf("victim: %q", out)
	}
	if n := total(sink.calls("getppid")); n != 100 {
		t.Errorf("%d denials in records, want 100", n)
	}
	if n := len(sink.calls("openat")); n != 0 {
		t.Errorf("%d opens went on", n)
	}
	close(sink.release)
	if out := finish(t, stuck, stuckSession); out != "ok=1 errno=0\n" {
		t.Errorf("victim: %q", out)
	}
	s.noLoss(t)
}

// What a session could not write at its end is tried a little longer.
func TestEndWaitsForTheSink(t *testing.T) {
	r := rules{unix.SYS_GETPPID: denied(unix.EPERM)}
	s := newStand(t, Options{Program: r})
	attempts := 0
	s.sink.hook = func(ev *audit.Event) {
		if ev.Syscall.Syscall == "getppid" {
			attempts++
		}
		s.sink.set(nil)
		if attempts > 0 && attempts <= foldBurst+1 { // single ones, and the count at the end
			s.sink.set(errSink)
		}
	}
	p, session := s.run(t, r, "", "deny", "100")
	if out := finish(t, p, session); out != "denied=100 errno=1\n" {
		t.Errorf("victim: %q", out)
	}
	if attempts <= foldBurst+1 {
		t.Errorf("%d attempts", attempts)
	}
	if n, l := total(s.sink.calls("getppid")), s.sink.losses(); n != 100 || len(l) != 0 || s.sink.folded != 0 {
		t.Errorf("%d denials in records, losses %+v, %d still folded; want 100 in records", n, l, s.sink.folded)
	}
}
