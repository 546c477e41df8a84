// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// TestLife goes through all of a resident's work.
func TestLife(t *testing.T) {
	s := setUp(t, func(g *guest) {
		if !g.ready() {
			return
		}
		if diff := cmp.Diff([]channel.Setting{{File: "pids.max", Value: "57"}}, g.start.Settings); diff != "" {
			t.Errorf("settings to begin with: %s", diff)
		}
		g.serve()
		g.say(channel.Fold{N: 5}) // as it stops
		folded := event(3, func(ev *audit.Event) {
			ev.Syscall.Verdict, ev.Syscall.Count, ev.Syscall.Until = audit.VerdictKilled, 5, ev.Time
		})
		folded.Folded = 5
		g.say(event(1, nil), event(2, func(ev *audit.Event) { ev.Syscall.Verdict = audit.VerdictKilled }), folded)
	}, func(c *Config) {
		c.Settings = func() []channel.Setting { return []channel.Setting{{File: "pids.max", Value: "57"}} }
	})
	early, err := s.r.Expect("", "T", testPlan)
	if err != nil {
		t.Fatal(err)
	}
	hello, err := s.launch()
	if err != nil || hello.Tasks != 9 {
		t.Fatalf("%+v, %v", hello, err)
	}
	for _, stdio := range []string{s.req.Stdin, s.req.Stdout, s.req.Stderr} {
		if fi, err := os.Stat(stdio); err != nil || fi.Mode() != os.ModeNamedPipe|0o600 {
			t.Errorf("%s: %v, %v", stdio, fi.Mode(), err)
		}
	}
	late, err := s.r.Expect("exec", "U", testPlan)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Pending{early, late} {
		f, err := p.Await(t.Context())
		if err != nil || f.PID != 7 || f.Seccomp != 2 {
			t.Fatalf("%+v, %v", f, err)
		}
		if err := f.Arm(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Close() // does nothing any more
	}
	values, err := s.r.Control(t.Context(), []channel.Setting{{File: "pids.max", Value: "64"}})
	if diff := cmp.Diff([]channel.Value{{File: "pids.max", Text: "64"}}, values); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if err := s.r.Ended(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := s.sink.kept()
	if len(kept) != 3 || s.sink.folds != 5 || s.sink.settled != 5 || s.r.Killed() != 6 {
		t.Errorf("%d events, %d denials counted, %d settled, %d killed", len(kept), s.sink.folds, s.sink.settled, s.r.Killed())
	}
	if len(s.lost) > 0 {
		t.Errorf("a loss at the normal end: %+v", <-s.lost)
	}
}

// TestProcess looks at what the delegate is asked to run.
func TestProcess(t *testing.T) {
	s := setUp(t, func(g *guest) { g.ready(); g.serve() }, nil)
	s.mustLaunch()
	var got specs.Process
	if err := json.Unmarshal(s.req.Spec.Value, &got); err != nil {
		t.Fatal(err)
	}
	want := specs.Process{Args: []string{"/.metsuke-0123/guest", "audit"}, Cwd: "/", Env: []string{}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b []string) bool { return strings.Join(a, " ") == strings.Join(b, " ") })); diff != "" {
		t.Error(diff)
	}
	if s.req.Spec.TypeUrl != processType || s.req.Terminal {
		t.Errorf("%+v", s.req)
	}
}

// TestComplaints writes more to stderr than is kept, in several pieces, and then too little for anybody to wait for.
func TestComplaints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stderr")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	text := strings.Repeat("panic: \x1b[2J\n", maxComplaint/8) // more than a pipe holds is read on
	for range 64 {
		if _, err := out.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	c.close("c")
	if string(c.text) != text[:maxComplaint] {
		t.Errorf("kept %d bytes, %q…", len(c.text), c.text[:min(len(c.text), 20)])
	}
}

// TestNotLaunched has the delegate, its policy and the resident itself fail.
func TestNotLaunched(t *testing.T) {
	denied := status.Error(codes.PermissionDenied, `"ExecProcessRequest is blocked by policy"`)
	tests := []struct {
		name      string
		refuse    map[string]error
		script    func(*guest)
		quiet     bool
		want      string
		forbidden bool
	}{
		{"no exec", map[string]error{"Exec": errors.New("container is paused")}, nil, false, "container is paused", false},
		{"no start", map[string]error{"Start": errors.New("no such file")}, nil, false, "no such file", false},
		{"policy", map[string]error{"Exec": denied}, nil, false, "blocked by policy", true},
		{"policy, the code lost", map[string]error{"Start": status.Error(codes.Unknown, "ttrpc: PERMISSION_DENIED")}, nil, false, "PERMISSION_DENIED", true},
		{"policy of runtime-rs", map[string]error{"Start": status.Error(codes.Unknown, `Others("ExecProcessRequest is blocked by policy: ")`)}, nil, false, "run the pod under", true},
		{"exits", nil, func(*guest) {}, false, "ended with status 3", false},
		{"exits, and the delegate is late", nil, func(*guest) {}, true, "ended with status 3", false},
		{"blank output", nil, func(g *guest) { g.out.Close(); <-g.dead }, true, "ended at once", true},
		{"gives up", nil, func(g *guest) { _ = g.begin() && g.say(channel.Fatal{Text: "no procfs here"}) }, false, "no procfs here", false},
		{"prints", nil, func(g *guest) { _, _ = g.out.WriteString("panic: runtime error\n") }, false, "not a frame", false},
		{"another build", nil, func(g *guest) { _, _ = g.out.Write([]byte{'M', 'C', 2, 33, 0, 0, 0, 0}) }, false, "of one build", false},
		{"event before ready", nil, func(g *guest) { _ = g.begin() && g.say(event(1, nil)); g.serve() }, false, "before it is ready", false},
		{"fold before ready", nil, func(g *guest) { _ = g.begin() && g.say(channel.Fold{N: 1}); g.serve() }, false, "before it is ready", false},
		{"kill before ready", nil, func(g *guest) { _ = g.begin() && g.say(channel.KillInit{}); g.serve() }, false, "before it is ready", false},
		{"found before ready", nil, func(g *guest) { _ = g.begin() && g.say(channel.Found{ID: 1}); g.serve() }, false, "not under way", false},
		{"too many tasks", nil, func(g *guest) { _ = g.begin() && g.say(channel.Ready{Tasks: channel.ResidentTasks + 1}); g.serve() }, false, "tasks", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := setUp(t, tt.script, nil)
			s.refuse, s.quiet = tt.refuse, tt.quiet
			early, err := s.r.Expect("", "T", testPlan)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.launch()
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrForbidden) != tt.forbidden {
				t.Errorf("got %v", err)
			}
			if _, err := early.Await(t.Context()); err == nil {
				t.Error("a launch was found")
			}
			if _, err := s.r.Expect("e", "U", testPlan); err == nil {
				t.Error("a launch can be expected")
			}
			if kept := s.finished(); len(kept) > 0 || len(s.lost) > 0 {
				t.Errorf("before any workload ran: %+v, %d losses", kept, len(s.lost))
			}
		})
	}
}

// TestKilledBeforeReady has a resident that the end of its container takes along: its launcher has waited for it in vain.
func TestKilledBeforeReady(t *testing.T) {
	s := setUp(t, func(*guest) {}, nil)
	s.status = 137
	if _, err := s.launch(); err == nil || !strings.Contains(err.Error(), "with status 137") || !errors.Is(err, errSilent) {
		t.Errorf("got %v", err)
	}
	s.finished()
}

func TestLaunchGivenUp(t *testing.T) {
	tests := []struct {
		name   string
		giveUp func(*stage, context.CancelFunc)
		want   error
	}{
		{"deadline", func(_ *stage, cancel context.CancelFunc) { cancel() }, context.Canceled},
		{"closed", func(s *stage, _ context.CancelFunc) { _ = s.r.Close(context.Background()) }, rendezvous.ErrClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begun := make(chan struct{})
			s := setUp(t, func(g *guest) { g.begin(); close(begun); g.serve() }, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { <-begun; tt.giveUp(s, cancel) }()
			if _, err := s.r.Launch(ctx); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "WriteStream") {
				t.Errorf("got %v, want %v and what may be wrong", err, tt.want)
			}
		})
	}
}

// TestDelegateIsSlow has a launch given up while the delegate is still at it: the error says what was late.
func TestDelegateIsSlow(t *testing.T) {
	for _, method := range []string{"Exec", "Start"} {
		t.Run(method, func(t *testing.T) {
			s := setUp(t, nil, nil)
			s.stuck = method
			ctx, cancel := context.WithCancelCause(t.Context())
			late := errors.New("not armed in time")
			time.AfterFunc(10*time.Millisecond, func() { cancel(late) })
			if _, err := s.r.Launch(ctx); !errors.Is(err, late) || errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNotLaunchedAtAll(t *testing.T) {
	s := setUp(t, nil, nil)
	p, err := s.r.Expect("", "T", testPlan)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.r.Ended(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.Await(t.Context()); !errors.Is(err, rendezvous.ErrClosed) {
		t.Error(err)
	}
	if _, err := s.launch(); err == nil || len(s.calls) > 0 {
		t.Errorf("launched after Close: %v, %q", err, s.calls)
	}
}

// TestDirectoryInUse has something of another's where a FIFO should be.
func TestDirectoryInUse(t *testing.T) {
	s := setUp(t, nil, nil)
	path := filepath.Join(s.r.cfg.Dir, "stdout")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.launch(); !errors.Is(err, os.ErrExist) || len(s.calls) > 0 {
		t.Errorf("got %v, after %q", err, s.calls)
	}
}

func TestNew(t *testing.T) {
	whole := setUp(t, nil, nil).r.cfg
	for name, change := range map[string]func(*Config){
		"container": func(c *Config) { c.Container = "" }, "helper": func(c *Config) { c.Helper = "" }, "exec": func(c *Config) { c.ExecID = "" },
		"dir": func(c *Config) { c.Dir = "" }, "invoke": func(c *Config) { c.Invoke = nil },
		"sink": func(c *Config) { c.Sink = nil }, "onLoss": func(c *Config) { c.OnLoss = nil },
		"onKillInit": func(c *Config) { c.OnKillInit = nil }, "start": func(c *Config) { c.Start.Credit = 1 },
	} {
		cfg := whole
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}

// mustArm has the init process armed.
func (s *stage) mustArm() {
	s.t.Helper()
	p, err := s.r.Expect("", "TOKEN", testPlan)
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := p.Await(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := f.Arm(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}
