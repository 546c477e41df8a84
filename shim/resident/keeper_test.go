// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

var errDisk = errors.New("no space left")

// stalled is a keeper whose stream does not work, in a bubble of time.
type stalled struct {
	*keeper
	sink  *sink
	lost  chan audit.Loss
	abort chan struct{}
}

func newStalled(start channel.Start) *stalled {
	s := &stalled{sink: &sink{fail: errDisk}, lost: make(chan audit.Loss, 9), abort: make(chan struct{})}
	s.keeper = newKeeper(Config{Sink: s.sink, Start: start, OnLoss: func(l audit.Loss) { s.lost <- l }}, s.abort)
	return s
}

func (s *stalled) keepOne(verdict audit.Verdict, n uint64) (acked bool, waited time.Duration) {
	began := time.Now()
	ev := &audit.Event{Time: began, Kind: audit.KindSyscall, Syscall: &audit.Syscall{Verdict: verdict}}
	acked = s.keep(ev, n, func() {})
	return acked, time.Since(began)
}

// verdicts are those of what is in the stream; "loss" for a loss.
func (s *stalled) verdicts() (got []string) {
	for _, ev := range s.sink.kept() {
		if ev.Loss != nil {
			got = append(got, "loss")
		} else {
			got = append(got, string(ev.Syscall.Verdict))
		}
	}
	return got
}

func TestStallThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStalled(channel.Start{Ordered: true})
		time.AfterFunc(time.Second, func() { s.sink.set(nil) })
		if acked, waited := s.keepOne(audit.VerdictAllowed, 0); !acked || waited < time.Second || waited > 2*time.Second {
			t.Errorf("acknowledged %t after %s", acked, waited)
		}
		if diff := cmp.Diff([]string{"allowed"}, s.verdicts()); diff != "" || len(s.lost) > 0 || s.stalls.Load() != 1 {
			t.Error(diff, len(s.lost), s.stalls.Load())
		}
	})
}

// TestFinalLoss is onLoss kill: no call that waits goes on any more.
func TestFinalLoss(t *testing.T) {
	tests := []struct {
		name    string
		ordered bool
		want    []string
		count   uint64
	}{
		{"ordered", true, []string{"loss", "denied", "killed"}, 1},
		{"buffered", false, []string{"loss", "allowed", "denied", "killed"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStalled(channel.Start{Ordered: tt.ordered})
				if err := s.fold(4); err != nil {
					t.Fatal(err)
				}
				if acked, waited := s.keepOne(audit.VerdictAllowed, 0); acked || waited < defaultStall {
					t.Errorf("acknowledged %t after %s", acked, waited)
				}
				synctest.Wait()
				l := <-s.lost
				if diff := cmp.Diff(audit.Loss{Reason: audit.LossStream, Count: 1, OnLoss: "kill", Detail: errDisk.Error()}, l); diff != "" {
					t.Error(diff)
				}
				if acked, waited := s.keepOne(audit.VerdictDenied, 3); acked || waited > 0 {
					t.Errorf("afterwards: acknowledged %t after %s", acked, waited)
				}
				s.sink.set(nil)
				for _, v := range []audit.Verdict{audit.VerdictAllowed, audit.VerdictDenied, audit.VerdictKilled} {
					if acked, waited := s.keepOne(v, 0); acked || waited > 0 {
						t.Errorf("%s, the stream works again: acknowledged %t after %s", v, acked, waited)
					}
				}
				if diff := cmp.Diff(tt.want, s.verdicts()); diff != "" {
					t.Error(diff)
				}
				loss := s.sink.kept()[0].Loss
				want := uint64(1 + 3)
				if tt.ordered {
					want++ // the call that comes after the stall is counted before anything is written
				}
				if loss.Count != want || loss.OnLoss != "kill" || s.sink.settled != 3 {
					t.Errorf("%+v, %d settled", loss, s.sink.settled)
				}
				s.finish(nil)
				if last := s.sink.kept()[len(s.sink.kept())-1].Loss; last == nil || last.Count != 1 || s.sink.settled != 4 || len(s.lost) > 0 {
					t.Errorf("in the end %+v, %d settled, told %d times", last, s.sink.settled, len(s.lost))
				}
			})
		})
	}
}

// TestLenientLoss is onLoss continue: calls go on and are counted, until the stream works again.
func TestLenientLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStalled(channel.Start{Ordered: true, Continue: true})
		for stall := range 2 {
			s.sink.set(errDisk)
			for i := range 3 {
				acked, waited := s.keepOne(audit.VerdictAllowed, 0)
				if !acked || (waited >= defaultStall) != (i == 0) {
					t.Errorf("call %d: acknowledged %t after %s", i, acked, waited)
				}
			}
			synctest.Wait()
			if l := <-s.lost; l.Reason != audit.LossStream || l.OnLoss != "continue" || len(s.lost) > 0 {
				t.Errorf("told %+v, and %d more", l, len(s.lost))
			}
			s.sink.set(nil)
			if acked, waited := s.keepOne(audit.VerdictAllowed, 0); !acked || waited > 0 {
				t.Errorf("the stream works again: acknowledged %t after %s", acked, waited)
			}
			kept := s.sink.kept()
			if loss := kept[2*stall].Loss; len(kept) != 2*stall+2 || loss == nil || loss.Count != 3 || loss.OnLoss != "continue" {
				t.Errorf("in the stream: %q, %+v", s.verdicts(), loss)
			}
		}
	})
}

// TestStallAtTheEnd has nothing wait any longer.
func TestStallAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStalled(channel.Start{})
		close(s.abort)
		if _, waited := s.keepOne(audit.VerdictAllowed, 0); waited > time.Second {
			t.Errorf("waited %s", waited)
		}
		began := time.Now()
		s.finish(errors.New("it died"))
		if waited := time.Since(began); waited > time.Second || len(s.lost) > 0 {
			t.Errorf("waited %s, told %d times", waited, len(s.lost))
		}
	})
}

// TestAcknowledgedBeforeStall has one event that waits for the disk behind one that is written.
func TestAcknowledgedBeforeStall(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.armed()
		g.say(event(1, nil))
		ack, _ := g.hear().(channel.Ack)
		if ack.Seq != 1 {
			return
		}
		g.say(event(2, func(ev *audit.Event) { ev.Syscall.Comm = "stalls" }))
		ack, _ = g.hear().(channel.Ack)
		if ack.Seq == 2 {
			g.serve()
		}
	}, nil)
	first := make(chan struct{})
	s.r.keeper.sink = hooked{s.sink, func(ev *audit.Event) error {
		if ev.Syscall == nil || ev.Syscall.Comm != "stalls" {
			return nil
		}
		select {
		case <-first:
			return nil
		default:
			close(first)
			return errDisk
		}
	}}
	s.mustLaunch()
	s.mustArm()
	for len(s.sink.kept()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := s.r.Ended(t.Context()); err != nil || len(s.lost) > 0 {
		t.Errorf("%v, %d losses", err, len(s.lost))
	}
}

// hooked is a sink that may refuse an event.
type hooked struct {
	*sink
	refuse func(*audit.Event) error
}

func (h hooked) AppendFolded(ev *audit.Event, n uint64) error {
	if err := h.refuse(ev); err != nil {
		return err
	}
	return h.sink.AppendFolded(ev, n)
}
