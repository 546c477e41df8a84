// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

// rec is an event of any bytes, long enough to be sent.
func rec(text string) channel.Event {
	return channel.Event{Seq: 1, Record: []byte(text + strings.Repeat(" ", max(0, channel.MinRecord-len(text))))}
}

// plainly makes a record that is not of the kinds that package audit would let us make.
func plainly(ev audit.Event, id audit.Identity) channel.Event {
	ev.Time = time.Now()
	return channel.Event{Seq: 1, Record: ev.AppendJSON(nil, &id, 1)}
}

// TestHostile has a resident, with a workload running, break each rule. It is killed, what it said before is kept, the
// loss is told and recorded.
func TestHostile(t *testing.T) {
	syscall := func(change func(*audit.Syscall)) channel.Event {
		return event(1, func(ev *audit.Event) { change(ev.Syscall) })
	}
	folded := func(n uint64, m channel.Event) channel.Event {
		m.Folded = n
		return m
	}
	say := func(m ...channel.Message) func(*guest) { return func(g *guest) { g.say(m...) } }
	raw := func(frame func(*guest) []byte) func(*guest) {
		return func(g *guest) { _, _ = g.out.Write(frame(g)) }
	}
	tests := []struct {
		name string
		do   func(*guest)
		want string // in the loss
	}{
		{"forged", raw(func(*guest) []byte {
			return forge([32]byte{1}, channel.GuestToHost, channel.Fold{N: 1})
		}), "not of this peer"},
		{"replayed", raw(func(g *guest) []byte {
			return forge(g.secret, channel.GuestToHost, channel.Ready{Version: "v", Tasks: 9})
		}), "not of this peer"},
		{"echoed", raw(func(g *guest) []byte {
			return forge(g.secret, channel.HostToGuest, g.start)
		}), "unknown type"},
		{"printed", raw(func(*guest) []byte { return []byte("fatal error: all goroutines are asleep") }), "not a frame"},
		{"oversized", raw(func(*guest) []byte { return []byte{'M', 'C', 1, 37, 255, 255, 255, 255} }), "size"},
		{"gap", say(event(2, nil)), "event 2 follows event 0"},
		{"repeated", say(event(1, nil), event(1, nil)), "event 1 follows event 1"},
		{"found an unknown launch", say(channel.Found{ID: 99}), "launch 99"},
		{"armed an unknown launch", say(channel.Armed{ID: 99}), "launch 99"},
		{"armed twice", say(channel.Armed{ID: 1}), "launch 1"},
		{"failed an unknown launch", say(channel.Failed{ID: 99}), "launch 99"},
		{"ready twice", say(channel.Ready{}), "ready twice"},
		{"answered no question", say(channel.Report{ID: 1}), "request 1"},
		{"counted too much", say(channel.Fold{N: 1 << 63}, channel.Fold{N: 1 << 63}), "denials were counted"},
		{"stands for more than counted", say(channel.Fold{N: 2}, folded(3, syscall(func(s *audit.Syscall) {
			s.Verdict, s.Count, s.Until = audit.VerdictDenied, 3, time.Now()
		}))), "more denials than were counted"},
		{"stands for another number", say(channel.Fold{N: 9}, folded(2, syscall(func(s *audit.Syscall) {
			s.Verdict, s.Count, s.Until = audit.VerdictDenied, 3, time.Now()
		}))), "3 calls, 2 of them"},
		{"folds what was allowed", say(channel.Fold{N: 1}, folded(1, event(1, nil))), "1 calls, 1 of them"},
		{"many at once", say(syscall(func(s *audit.Syscall) { s.Count, s.Until = 9, time.Now() })), "9 calls"},
		{"no record", say(rec("no JSON")), "not an audit record"},
		{"two records", say(func() channel.Event {
			m := event(1, nil)
			m.Record = append(append(m.Record, '\n'), m.Record...)
			return m
		}()), "not an audit record"},
		{"unknown field", say(func() channel.Event {
			m := event(1, nil)
			m.Record = bytes.Replace(m.Record, []byte(`"pid":0`), []byte(`"pid":0,"x":1`), 1)
			return m
		}()), "not in the form"},
		{"identity", say(plainly(audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream}}, audit.Identity{Pod: "other"})), "identity"},
		{"receipt", say(plainly(audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{}}, audit.Identity{})), "kind start"},
		{"exit", say(plainly(audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}}, audit.Identity{})), "kind exit"},
		{"loss of the host's", say(plainly(audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossTorn}}, audit.Identity{})), "torn-record"},
		{"loss with bytes", say(plainly(audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Bytes: 1}}, audit.Identity{})), "1 bytes"},
		{"verdict", say(syscall(func(s *audit.Syscall) { s.Verdict = "fine" })), `verdict "fine"`},
		{"evidence", say(syscall(func(s *audit.Syscall) { s.Args[0].Evidence = "sworn" })), `evidence "sworn"`},
		{"gives up", say(channel.Fatal{Text: "out of memory"}), "out of memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			over := make(chan struct{})
			s := setUp(t, func(g *guest) {
				if !g.armed() {
					return
				}
				tt.do(g)
				<-g.dead // it goes on running, until it is killed
				close(over)
			}, func(c *Config) { c.Start.Continue = true }) // so that it is told each time
			s.mustLaunch()
			s.mustArm()
			l := s.loss()
			if l.Reason != audit.LossSupervisor || l.OnLoss != "continue" || !strings.Contains(l.Detail, tt.want) {
				t.Errorf("told %+v", l)
			}
			<-over
			kept := s.finished()
			if len(kept) == 0 {
				t.Fatal("nothing in the stream")
			}
			last := kept[len(kept)-1].Loss
			if last == nil || last.Reason != l.Reason || last.Detail != l.Detail || last.Count != s.sink.folds || s.sink.settled != s.sink.folds {
				t.Errorf("recorded %+v; %d denials were counted, %d settled", last, s.sink.folds, s.sink.settled)
			}
			if _, err := s.r.Control(t.Context(), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Control: %v", err)
			}
		})
	}
}

// TestHostileLaunch breaks the rules of a launch.
func TestHostileLaunch(t *testing.T) {
	tests := []struct {
		name string
		say  []channel.Message
		want string
	}{
		{"armed on its own", []channel.Message{channel.Armed{ID: 1}}, "on its own"},
		{"found twice", []channel.Message{channel.Found{ID: 1}, channel.Found{ID: 1}}, "twice"},
		{"failed twice", []channel.Message{channel.Failed{ID: 1, Text: "x"}, channel.Failed{ID: 1, Text: "x"}}, "not under way"},
		{"failed nowhere", []channel.Message{channel.Failed{ID: 1, Stage: 12}}, "stage 12"},
		{"failed with no error", []channel.Message{channel.Failed{ID: 1, Stage: 1, Errno: 4096}}, "errno 4096"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := setUp(t, func(g *guest) {
				g.ready()
				g.hear()
				g.say(tt.say...)
				<-g.dead
			}, nil)
			s.mustLaunch()
			if _, err := s.r.Expect("", "T", testPlan); err != nil {
				t.Fatal(err)
			}
			s.finished()
			if s.r.err == nil || !strings.Contains(s.r.err.Error(), tt.want) {
				t.Errorf("got %v", s.r.err)
			}
			if len(s.lost) > 0 {
				t.Error("a loss before a workload ran")
			}
		})
	}
}

// TestOverCredit sends more than is acknowledged while the stream does not work.
func TestOverCredit(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.armed()
		for i := uint64(1); g.say(event(i, func(ev *audit.Event) { ev.Syscall.Exe = strings.Repeat("x", audit.MaxValue) })); i++ {
		}
		<-g.dead
	}, func(c *Config) { c.StallTimeout = time.Hour })
	s.sink.set(errDisk)
	s.mustLaunch()
	s.mustArm()
	if l := s.loss(); !strings.Contains(l.Detail, "are not acknowledged") {
		t.Errorf("told %+v", l)
	}
	s.sink.set(nil)
	kept := s.finished()
	size := 0
	for _, ev := range kept {
		size += len(ev.AppendJSON(nil, &audit.Identity{}, 1))
	}
	if last := kept[len(kept)-1].Loss; last == nil || size > channel.MaxRecord+4096 || len(kept) < 2 {
		t.Errorf("%d bytes in %d events were kept, the last is %+v", size, len(kept), last)
	}
}

// TestFlood sends much of what needs no credit.
func TestFlood(t *testing.T) {
	const counts = burst + 50
	s := setUp(t, func(g *guest) {
		g.armed()
		for range counts {
			g.say(channel.Fold{N: 1})
		}
		g.say(channel.KillInit{}, channel.KillInit{})
		g.say(event(1, nil))
		g.serve()
	}, nil)
	s.mustLaunch()
	s.mustArm()
	<-s.inits
	for len(s.sink.kept()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(s.inits) > 0 {
		t.Error("the init process is killed twice")
	}
	kept := s.sink.kept()
	if last := kept[len(kept)-1].Loss; s.sink.folds != counts || last == nil || last.Count != counts || last.OnLoss != "" {
		t.Errorf("%d counted, and in the end %+v", s.sink.folds, last)
	}
	if len(s.lost) > 0 {
		t.Errorf("%+v", <-s.lost)
	}
}

// TestFloodOfLosses has a resident of a container that is to go on tell of losses without end. They are in the stream; the
// host's log is for the host's own.
func TestFloodOfLosses(t *testing.T) {
	const losses = 50
	s := setUp(t, func(g *guest) {
		g.armed()
		for i := range uint64(losses) {
			m := plainly(audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 1}}, audit.Identity{})
			m.Seq = i + 1
			g.say(m)
		}
		g.serve()
	}, func(c *Config) { c.Start.Continue = true })
	s.mustLaunch()
	s.mustArm()
	for len(s.sink.kept()) < losses {
		time.Sleep(time.Millisecond)
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(s.lost) > 0 {
		t.Errorf("told %d times: %+v", len(s.lost), <-s.lost)
	}
}

// TestKillHeldUp has a guest that breaks a rule and then does not answer whoever kills in it. The container's end is asked for
// all the same.
func TestKillHeldUp(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.armed()
		g.say(event(2, nil))
		<-g.dead
	}, nil)
	held, invoke := make(chan struct{}), s.r.exec.invoke
	s.r.exec.invoke = func(ctx context.Context, method string, req, resp proto.Message) error {
		if method == "Kill" {
			<-held
		}
		return invoke(ctx, method, req, resp)
	}
	s.mustLaunch()
	s.mustArm()
	s.loss()
	close(held)
	s.finished()
}

// TestNotKilled has a guest that goes on as if nothing were when it is to be killed, its output does not end. The loss is
// recorded all the same, and what comes after is not believed.
func TestNotKilled(t *testing.T) {
	large := *testPlan
	large.Filter = bytes.Repeat(large.Filter, 4096)
	for name, do := range map[string]func(*stage, *guest) (next uint64){
		"bad record": func(_ *stage, g *guest) uint64 {
			g.say(rec("no JSON"))
			return 2
		},
		"reads nothing": func(s *stage, _ *guest) uint64 {
			for range 9 {
				_, _ = s.r.Expect("e", "T", &large) // more than the pipe holds
			}
			<-s.r.gone
			_, _ = s.r.Expect("e", "T", testPlan) // waits until that has been seen to
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s *stage
			over := make(chan struct{})
			defer close(over)
			s = setUp(t, func(g *guest) {
				g.armed()
				for n := do(s, g); n < 9 && g.say(channel.Fold{N: 1}, event(n, nil)); n++ {
				}
				<-over
			}, func(c *Config) { c.Start.Continue = true })
			s.r.pipes.timeout = time.Second
			invoke := s.r.exec.invoke
			s.r.exec.invoke = func(ctx context.Context, method string, req, resp proto.Message) error {
				if method == "Kill" {
					return nil
				}
				return invoke(ctx, method, req, resp)
			}
			s.mustLaunch()
			s.mustArm()
			l := s.loss()
			kept := s.finished()
			if len(kept) != 1 || kept[0].Loss == nil || kept[0].Loss.Detail != l.Detail || s.sink.folds > 0 {
				t.Errorf("recorded %+v, told %+v; %d denials were counted", kept, l, s.sink.folds)
			}
		})
	}
}

// TestStuckReader has a resident that reads nothing after Start.
func TestStuckReader(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.ready()
		<-g.dead
	}, nil)
	s.mustLaunch()
	s.r.pipes.timeout = time.Millisecond // of what comes after Start
	large := *testPlan
	large.Filter = bytes.Repeat(large.Filter, 4096)
	var last *Pending
	for i := range channel.MaxSessions {
		p, err := s.r.Expect(fmt.Sprint("e", i), "T", &large)
		if err != nil {
			break // it is over already
		}
		last = p
	}
	if _, err := last.Await(t.Context()); err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("got %v", err)
	}
	s.finished()
}

// TestTooMany has a resident that never ends a launch or answers.
func TestTooMany(t *testing.T) {
	asked := make(chan struct{}, maxControls)
	s := setUp(t, func(g *guest) {
		g.ready()
		for m := g.hear(); m != nil; m = g.hear() {
			switch m.(type) {
			case channel.Control:
				asked <- struct{}{}
			case channel.Stop:
				return
			}
		}
	}, nil)
	s.mustLaunch()
	for i := range channel.MaxSessions {
		p, err := s.r.Expect("e", "T", testPlan)
		if err != nil {
			t.Fatalf("launch %d: %v", i, err)
		}
		p.Cancel() // which it does not confirm
	}
	if _, err := s.r.Expect("e", "T", testPlan); err == nil {
		t.Error("a launch too many")
	}
	for i := range maxControls {
		ctx, giveUp := context.WithCancel(t.Context())
		go func() { <-asked; giveUp() }()
		if _, err := s.r.Control(ctx, nil); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("request %d: got %v", i, err)
		}
	}
	s.r.patience = time.Millisecond
	if _, err := s.r.Control(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("a request too many: got %v", err)
	}
}
