// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// TestEnd ends the resident's process at each step. Whoever waits is told; it is a loss once a workload may run, unless
// the container has ended as well.
func TestEnd(t *testing.T) {
	hear := func(n int, say ...channel.Message) func(*guest) {
		return func(g *guest) {
			g.ready()
			for range n {
				g.hear()
			}
			g.say(say...)
		}
	}
	found := channel.Found{ID: 1, PID: 7}
	half := func(g *guest) {
		g.armed()
		frame := forge(g.secret, channel.GuestToHost, channel.Ready{})
		_, _ = g.out.Write(frame[:len(frame)/2])
	}
	tests := []struct {
		name   string
		script func(*guest)
		step   string // that fails
		loss   bool   // if the container runs
	}{
		{"before start", func(*guest) {}, "launch", false},
		{"after start", func(g *guest) { g.begin() }, "launch", false},
		{"half ready", func(g *guest) {
			g.begin()
			_, _ = g.out.Write(forge(g.secret, channel.GuestToHost, channel.Ready{})[:9])
		}, "launch", false},
		{"ready", hear(0), "await", false},
		{"expecting", hear(1), "await", false},
		{"found", hear(1, found), "arm", false},                              // it may be told to arm, but nothing did
		{"arming", func(g *guest) { hear(1, found)(g); g.hear() }, "", true}, // the workload may have run
		{"armed", func(g *guest) { g.armed() }, "", true},
		{"in a frame", half, "", true},
		{"asked for limits", func(g *guest) { g.armed(); g.hear() }, "control", true},
	}
	for _, tt := range tests {
		for _, ended := range []bool{false, true} {
			t.Run(strings.TrimSpace(tt.name+map[bool]string{true: " with the container"}[ended]), func(t *testing.T) {
				s := setUp(t, tt.script, nil)
				if ended {
					s.r.grace = patience
				}
				failed, err := s.steps(tt.step == "control")
				if failed != tt.step && (tt.step != "arm" || failed != "await" && failed != "") {
					t.Errorf("%s failed, want %q to: %v", failed, tt.step, err)
				}
				if ended {
					if err := s.r.Ended(t.Context()); err != nil {
						t.Error(err)
					}
				}
				kept := s.finished()
				if tt.name == "found" && failed != "await" {
					return // told to arm, so a workload may run, for all we know
				}
				if lost := tt.loss && !ended; lost {
					if l := s.loss(); l.Reason != audit.LossSupervisor || l.OnLoss != "kill" || len(kept) != 1 || kept[0].Loss.Detail != l.Detail {
						t.Errorf("told %+v, recorded %+v", l, kept)
					}
				} else if len(kept) > 0 || len(s.lost) > 0 {
					t.Errorf("a loss: %+v", kept)
				}
			})
		}
	}
}

// steps goes through a life until something fails, or the resident is gone. ask has it asked for limits.
func (s *stage) steps(ask bool) (string, error) {
	if _, err := s.launch(); err != nil {
		return "launch", err
	}
	ctx := s.t.Context()
	p, err := s.r.Expect("", "T", testPlan)
	if err != nil {
		return "await", err
	}
	f, err := p.Await(ctx)
	if err != nil {
		return "await", err
	}
	if err := f.Arm(ctx); err != nil {
		return "arm", err
	}
	if !ask {
		<-s.r.gone
	} else if _, err := s.r.Control(ctx, nil); err != nil {
		return "control", err
	}
	return "", nil
}

// TestFailed has launches fail by the launcher's account and by the resident's.
func TestFailed(t *testing.T) {
	noExec := func(exec bool) error {
		return &rendezvous.ExecError{Stage: plan.StageStat, Errno: syscall.ENOENT, Arg: "/bin/nothing", Exec: exec}
	}
	tests := []struct {
		name, exec string
		failed     channel.Failed
		arm        bool // it fails only then
		want       error
		text       string
	}{
		{"init", "", channel.Failed{Stage: uint8(plan.StageStat), Errno: 2, Arg: "/bin/nothing"}, false, noExec(false), ""},
		{"exec", "e", channel.Failed{Stage: uint8(plan.StageStat), Errno: 2, Arg: "/bin/nothing"}, false, noExec(true), ""},
		{"armed", "e", channel.Failed{Stage: uint8(plan.StageStat), Errno: 2, Arg: "/bin/nothing"}, true, noExec(true), ""},
		{"resident", "", channel.Failed{Text: "no room"}, false, nil, "no room"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := setUp(t, func(g *guest) {
				g.ready()
				e, _ := g.hear().(channel.Expect)
				tt.failed.ID = e.ID
				if tt.arm {
					g.say(channel.Found{ID: e.ID})
					g.hear()
				}
				g.say(tt.failed)
				g.serve()
			}, nil)
			s.mustLaunch()
			p, err := s.r.Expect(tt.exec, "T", testPlan)
			if err != nil {
				t.Fatal(err)
			}
			f, err := p.Await(t.Context())
			if tt.arm && err == nil {
				err = f.Arm(t.Context())
			}
			if tt.want != nil {
				var got *rendezvous.ExecError
				if !errors.As(err, &got) || got.Error() != tt.want.Error() || !errors.Is(err, syscall.ENOENT) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCancel gives launches up before the resident is ready, before it answers, and when it has.
func TestCancel(t *testing.T) {
	heard := make(chan []channel.Message, 1)
	goOn := make(chan struct{})
	s := setUp(t, func(g *guest) {
		g.begin()
		<-goOn
		g.say(channel.Ready{})
		var all []channel.Message
		for m := g.hear(); m != nil; m = g.hear() {
			all = append(all, m)
			switch m := m.(type) {
			case channel.Expect:
				if m.Exec != "slow" {
					g.say(channel.Found{ID: m.ID})
				}
			case channel.Cancel:
				g.say(channel.Failed{ID: m.ID, Text: "canceled"})
			case channel.Stop:
				heard <- all
				return
			}
		}
	}, nil)
	expect := func(exec string) *Pending {
		p, err := s.r.Expect(exec, "T", testPlan)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	never := expect("never")
	never.Cancel()
	early := expect("early")
	launched := make(chan error, 1)
	go func() { _, err := s.launch(); launched <- err }()
	close(goOn)
	if err := <-launched; err != nil {
		t.Fatal(err)
	}
	f, err := early.Await(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := expect("slow").Await(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := f.Arm(t.Context()); !errors.Is(err, rendezvous.ErrCanceled) {
		t.Errorf("armed after it was given up: %v", err)
	}
	if _, err := never.Await(t.Context()); !errors.Is(err, rendezvous.ErrCanceled) {
		t.Error(err)
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range <-heard {
		switch m := m.(type) {
		case channel.Expect:
			got = append(got, "expect "+m.Exec)
		case channel.Cancel:
			got = append(got, "cancel")
		}
	}
	if want := []string{"expect early", "cancel", "expect slow", "cancel"}; !slices.Equal(got, want) {
		t.Errorf("the resident heard %q, want %q", got, want)
	}
}

// TestClose ends residents that do not stop when they are asked to.
func TestClose(t *testing.T) {
	tests := []struct {
		name   string
		script func(*guest)
	}{
		{"deaf", func(g *guest) { g.armed(); <-g.dead }},
		{"talking", func(g *guest) {
			g.armed()
			for i := uint64(1); g.say(event(i, nil)); i++ {
				if _, ok := g.hear().(channel.Ack); !ok {
					break // Stop: it goes on all the same
				}
			}
			<-g.dead
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := setUp(t, tt.script, nil)
			s.r.drain = time.Millisecond
			s.mustLaunch()
			s.mustArm()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := s.r.Ended(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if err := s.r.Close(t.Context()); err != nil && !strings.Contains(err.Error(), "last events") {
				t.Error(err)
			}
			if !s.called("Kill") || !s.called("Delete") || len(s.lost) > 0 {
				t.Errorf("calls %q, %d losses", s.calls, len(s.lost))
			}
		})
	}
}

// TestLossInside has the resident tell of a session that it can no longer serve: what is done about it is the host's.
func TestLossInside(t *testing.T) {
	s := setUp(t, func(g *guest) {
		g.armed()
		l := &audit.Loss{Reason: audit.LossSupervisor, Count: 2, Detail: "broken listener", OnLoss: "continue"}
		g.say(channel.Fold{N: 2})
		m := plainly(audit.Event{Kind: audit.KindLoss, Exec: "e", Loss: l}, audit.Identity{})
		m.Folded = 2
		g.say(m)
		g.serve()
	}, nil)
	s.mustLaunch()
	s.mustArm()
	l := s.loss()
	if err := s.r.Ended(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := s.sink.kept()
	want := audit.Loss{Reason: audit.LossSupervisor, Count: 2, Detail: "broken listener", OnLoss: "kill"}
	if l != want || len(kept) != 1 || *kept[0].Loss != want || kept[0].Exec != "e" || s.sink.settled != 2 {
		t.Errorf("told %+v, recorded %+v, %d settled", l, kept, s.sink.settled)
	}
}

// TestEndIsToldLate has a container end without the delegate saying so, for longer than the grace: it is asked.
func TestEndIsToldLate(t *testing.T) {
	for name, over := range map[string]bool{"ended": true, "running": false} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, func(g *guest) { g.armed() }, nil)
			s.over = over
			s.mustLaunch()
			s.mustArm()
			if kept := s.finished(); over == (len(kept) > 0) {
				t.Errorf("recorded %+v", kept)
			}
		})
	}
}

// state says that the session, or the container, runs or has ended.
func (d *delegate) state(req *taskapi.StateRequest, resp *taskapi.StateResponse) {
	ended := req.ExecID == "" && d.over
	select {
	case <-d.ended:
		if req.ExecID != "" {
			ended, resp.ExitStatus = true, d.status
		}
	default:
	}
	if resp.Status = task.Status_RUNNING; ended {
		resp.Status = task.Status_STOPPED
	}
}

// TestEndsWithTheWorkload has a container's first process whose end takes the resident along before that has said that it is
// armed; that of an exec session does not.
func TestEndsWithTheWorkload(t *testing.T) {
	for exec, started := range map[string]bool{"": true, "e": false} {
		t.Run(exec, func(t *testing.T) {
			s := setUp(t, func(g *guest) {
				g.ready()
				for m := g.hear(); m != nil; m = g.hear() {
					switch m := m.(type) {
					case channel.Expect:
						g.say(channel.Found{ID: m.ID, PID: 7, Seccomp: 2})
					case channel.Arm:
						return
					}
				}
			}, nil)
			s.mustLaunch()
			p, err := s.r.Expect(exec, "T", testPlan)
			if err != nil {
				t.Fatal(err)
			}
			f, err := p.Await(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Arm(t.Context()); (err == nil) != started {
				t.Errorf("exec %q: got %v", exec, err)
			}
			_ = s.r.Ended(t.Context())
			s.finished()
		})
	}
}

// TestContainerDeleted closes a resident whose container the delegate has forgotten, in the words of each.
func TestContainerDeleted(t *testing.T) {
	for name, words := range map[string][3]error{ // of Kill, Wait, Delete
		"a code": {errgrpc.ToGRPC(errdefs.ErrNotFound), errgrpc.ToGRPC(errdefs.ErrNotFound), errgrpc.ToGRPC(errdefs.ErrNotFound)},
		"runtime-rs": {
			status.Error(codes.Unknown, "failed to find container c"), status.Error(codes.Unknown, "failed to find container c"),
			status.Error(codes.Unknown, "Others: failed to find process ContainerProcess"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, func(g *guest) { g.ready(); g.serve() }, nil)
			s.r.grace = patience // the delegate is asked by Close alone
			s.mustLaunch()
			s.kill()
			<-s.r.gone
			s.refuse = map[string]error{"Kill": words[0], "Wait": words[1], "Delete": words[2]}
			if err := s.r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
