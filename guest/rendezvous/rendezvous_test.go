// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// soon is a deadline for what is not to happen.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

var listenerFrame = plan.AppendHeader(nil, plan.TypeListener, 0)

func TestHandshake(t *testing.T) {
	for _, order := range []string{"confirmed first", "connected first"} {
		t.Run(order, func(t *testing.T) {
			checkLeaks(t)
			path := filepath.Join(t.TempDir(), "sock")
			r := listenAt(t, path)
			p, token := expect(t, r)
			confirm := func() {
				if err := p.Confirm(self); err != nil {
					t.Fatal(err)
				}
			}
			if order == "confirmed first" {
				confirm()
			}
			c := dial(t, path)
			c.hello(token)
			if diff := cmp.Diff(testPlan, c.plan()); diff != "" {
				t.Errorf("plan (-sent +got):\n%s", diff)
			}
			c.listener(listenerFrame, int(launchtest.NewListener(t).Fd()))
			if order == "connected first" {
				time.AfterFunc(20*time.Millisecond, confirm)
			}
			l, err := p.Await(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Listener.Close()
			if l.PID != self {
				t.Errorf("pid %d, want %d", l.PID, self)
			}
			flags, err := unix.FcntlInt(l.Listener.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("the listener is not close-on-exec: flags %d, %v", flags, err)
			}
			armed := make(chan error)
			go func() { armed <- l.Arm(deadline(t)) }()
			c.frame(plan.TypeArmed)
			select {
			case err := <-armed:
				t.Fatalf("Arm has returned before the launcher was gone: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			c.conn.Close() // as execve does
			if err := <-armed; err != nil {
				t.Errorf("Arm: %v", err)
			}
			l.Close()
		})
	}
}

func TestSocket(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	for range 5 {
		dir = filepath.Join(dir, strings.Repeat("d", 40)) // longer than an address of a socket
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // as a shim that was killed leaves it
		t.Fatal(err)
	}
	r, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o666 {
		t.Errorf("mode %v, %v; any user of the container must be able to connect", st.Mode(), err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, "nothing", "sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Listen in a directory that is not there: %v", err)
	}
}

func TestExpectRefuses(t *testing.T) {
	r := listenAt(t, filepath.Join(t.TempDir(), "sock"))
	_, token := expect(t, r)
	for name, spec := range map[string]Spec{
		"token in use":  {Token: token, Plan: testPlan},
		"no token":      {Plan: testPlan},
		"no filter":     {Token: NewToken(), Plan: &plan.Plan{}},
		"token of many": {Token: strings.Repeat("x", 100), Plan: testPlan},
	} {
		if _, err := r.Expect(spec); err == nil {
			t.Errorf("%s: expected", name)
		}
	}
}

func TestTokensAreNew(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		token := NewToken()
		if len(token) != 32 || seen[token] {
			t.Fatalf("token %q", token)
		}
		seen[token] = true
	}
}

// TestEnds covers the ways in which a launch ends that is not handed over.
func TestEnds(t *testing.T) {
	tests := map[string]struct {
		end  func(r *Rendezvous, p *Pending, cancel func())
		want error
		text string
	}{
		"canceled":  {func(_ *Rendezvous, p *Pending, _ func()) { p.Cancel() }, ErrCanceled, ""},
		"closed":    {func(r *Rendezvous, _ *Pending, _ func()) { r.Close() }, ErrClosed, ""},
		"too late":  {func(_ *Rendezvous, _ *Pending, cancel func()) { cancel() }, context.Canceled, "has its plan"},
		"too early": {func(_ *Rendezvous, p *Pending, _ func()) { p.Cancel(); p.Cancel() }, ErrCanceled, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			path := filepath.Join(t.TempDir(), "sock")
			r := listenAt(t, path)
			p, token := expect(t, r)
			if err := p.Confirm(self); err != nil {
				t.Fatal(err)
			}
			c := dial(t, path)
			c.hello(token)
			c.plan()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			time.AfterFunc(20*time.Millisecond, func() { test.end(r, p, cancel) })
			l, err := p.Await(ctx)
			if l != nil || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Await: %v, %v; want %v with %q", l, err, test.want, test.text)
			}
			c.refused()
			if _, again := p.Await(context.Background()); !errors.Is(again, test.want) {
				t.Errorf("Await again: %v", again)
			}
		})
	}
}

// TestProgressIsTold holds that a deadline's error says what was waited for.
func TestProgressIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	for want, prepare := range map[string]func(p *Pending, token string){
		"nothing has connected": func(*Pending, string) {},
		"has not connected":     func(p *Pending, _ string) { _ = p.Confirm(self) },
		"pid is not known": func(_ *Pending, token string) {
			c := dial(t, path)
			c.hello(token)
			c.plan()
		},
	} {
		p, token := expect(t, r)
		prepare(p, token)
		if _, err := p.Await(soon(t)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
			t.Errorf("Await: %v, want %q", err, want)
		}
	}
}

func TestFailureIsHandedOver(t *testing.T) {
	const text = "unable to start container process: "
	const in = "error during container init: "
	tests := []struct {
		failure plan.Failure
		exec    bool
		want    string
	}{
		{plan.Failure{Stage: plan.StageNotFound, Arg: "x"}, false, text + in + `exec: "x": executable file not found in $PATH`},
		{plan.Failure{Stage: plan.StageNotFound, Arg: "x"}, true, text + `exec: "x": executable file not found in $PATH`},
		{plan.Failure{Stage: plan.StageStat, Errno: 2, Arg: "/x\n"}, true, text + `exec: "/x\n": stat /x` + "\n: no such file or directory"},
		{plan.Failure{Stage: plan.StageExecutable, Errno: 21, Arg: "/x"}, true, text + `exec: "/x": is a directory`},
		{plan.Failure{Stage: plan.StageRelative, Arg: "x"}, true, text + `exec: "x": cannot run executable found relative to current directory`},
		{plan.Failure{Stage: plan.StageFilter, Errno: 1}, false, text + in + "metsuke launcher: load the seccomp filter: operation not permitted"},
		{plan.Failure{Stage: plan.StageExec, Errno: 38, Arg: "/x"}, true, text + `metsuke launcher: exec "/x": function not implemented`},
		{plan.Failure{Stage: plan.StagePlan}, true, text + "metsuke launcher: read the plan"},
	}
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	for _, test := range tests {
		for _, armed := range []bool{false, true} {
			token := NewToken()
			p, err := r.Expect(Spec{Token: token, Plan: testPlan, Exec: test.exec})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Confirm(self); err != nil {
				t.Fatal(err)
			}
			c := dial(t, path)
			c.hello(token)
			c.plan()
			var l *Launch
			if armed {
				c.listener(listenerFrame, int(launchtest.NewListener(t).Fd()))
				if l, err = p.Await(deadline(t)); err != nil {
					t.Fatal(err)
				}
				l.Listener.Close()
			}
			c.write(test.failure.Append(nil))
			_ = c.conn.CloseWrite() // or gone already
			if armed {
				err = l.Arm(deadline(t))
			} else {
				_, err = p.Await(deadline(t))
			}
			told, ok := errors.AsType[*ExecError](err)
			if !ok || told.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
				continue
			}
			if errno := unix.Errno(test.failure.Errno); errno != 0 && !errors.Is(err, errno) {
				t.Errorf("%v is not %v", err, errno)
			}
			if workload := test.failure.Stage <= plan.StageRelative; told.Workload() != workload {
				t.Errorf("%v: the workload's fault is %v", err, told.Workload())
			}
		}
	}
}

func TestConfirm(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, _ := expect(t, r)
	for _, pid := range []int{0, -1} {
		if err := p.Confirm(pid); err == nil {
			t.Errorf("pid %d is confirmed", pid)
		}
	}
	other := connect(t, path)
	for _, test := range []struct {
		pid int
		ok  bool
	}{{self, true}, {self, true}, {other.cmd.Process.Pid, false}} {
		if err := p.Confirm(test.pid); (err == nil) != test.ok {
			t.Errorf("Confirm(%d): %v", test.pid, err)
		}
	}
	p.Cancel()
	if err := p.Confirm(self); err != nil {
		t.Errorf("Confirm after the end: %v", err)
	}
}

// TestDeath has launchers that end before, or without, a connection.
func TestDeath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	for _, when := range []string{"before it is confirmed", "after"} {
		t.Run(when, func(t *testing.T) {
			checkLeaks(t)
			other := connect(t, path)
			p, _ := expect(t, r)
			if when == "after" {
				time.AfterFunc(20*time.Millisecond, other.end)
			} else {
				other.end()
			}
			if err := p.Confirm(other.cmd.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Await(deadline(t)); !errors.Is(err, ErrDied) {
				t.Errorf("Await: %v, want %v", err, ErrDied)
			}
		})
	}
}

// TestFailureOutlivesTheLauncher: a launcher that has said why, and is gone and reaped before its
// pid is known, has still said why.
func TestFailureOutlivesTheLauncher(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	other := connect(t, path)
	if answer := other.send(t, helloFrame(t, token)); answer == "eof" {
		t.Fatal("no plan")
	}
	other.post(plan.Failure{Stage: plan.StageNotFound}.Append(nil))
	eventually(t, r, "the reason is there", func() bool { return p.candidates[0].outcome != nil })
	other.end()
	if err := p.Confirm(other.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	_, err := p.Await(deadline(t))
	if told, ok := errors.AsType[*ExecError](err); !ok || told.Stage != plan.StageNotFound {
		t.Errorf("Await: %v, want the launcher's reason", err)
	}
}

func TestArmRespectsItsDeadline(t *testing.T) {
	checkLeaks(t)
	path := filepath.Join(t.TempDir(), "sock")
	r := listenAt(t, path)
	p, token := expect(t, r)
	if err := p.Confirm(self); err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	c.hello(token)
	c.plan()
	c.listener(listenerFrame, int(launchtest.NewListener(t).Fd()))
	l, err := p.Await(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Listener.Close()
	if err := l.Arm(soon(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Arm: %v", err)
	}
	c.frame(plan.TypeArmed)
	c.refused()
}
