// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
)

var bothDeliveries = map[string]bool{"ordered": true, "buffered": false}

// TestFlow is a container's life: its own process, exec sessions of several users, audited calls, denials, kills, the end.
func TestFlow(t *testing.T) {
	for name, ordered := range bothDeliveries {
		t.Run(name, func(t *testing.T) {
			h := stand(t, options{ordered: ordered})
			if h.ready.Kernel == "" || h.ready.Version == "" || h.ready.Tasks == 0 || h.ready.Tasks > channel.ResidentTasks {
				t.Errorf("Ready is %+v", h.ready)
			}
			found := h.heard(1).found
			if found.PID != 1 || found.UID != 0 || found.Seccomp != 2 || found.Filters != 1 || !found.NoNewPrivs {
				t.Errorf("Found is %+v", found)
			}
			processes := map[string]*process{"": h.c.init}
			for i := range 3 {
				name := fmt.Sprint("session-", i)
				processes[name] = h.exec(name, uint32(4242*i), "workload")
			}
			if found := h.heard(3).found; found.UID != 4242 || found.GID != 4242 {
				t.Errorf("Found of a user's session is %+v", found)
			}
			for name, p := range processes {
				p.post(t, "opens 50 /etc/passwd")
				p.post(t, "deny 2")
				p.post(t, "opens 1 /%s", name)
			}
			for name, p := range processes {
				for _, want := range []string{"50 0", "2 13", fmt.Sprintf("0 %d", unix.ENOENT)} {
					if got := p.answer(t); got != want && (want[0] != '0' || name != "") {
						t.Errorf("session %q answers %q, want %q", name, got, want)
					}
				}
			}
			if got := processes["session-2"].ask(t, "killed"); got != "9" {
				t.Errorf("a killed child ended with signal %s", got)
			}
			// All is on the host by now, if not before the calls went on.
			h.await("all events", func() bool { return len(h.events) >= 4*(1+50+2+1)+1 })
			for call, want := range map[string]int{"execve": 4, "getppid": 8, "openat": 204, "personality": 1} {
				if got := h.calls(call, ""); got != want {
					t.Errorf("%d events of %s, want %d", got, call, want)
				}
			}
			for name, p := range processes {
				if got := h.calls("openat", "/"+name); got != 1 {
					t.Errorf("%d events of the file of session %q", got, name)
				}
				if p == h.c.init {
					continue
				}
				p.stdin.Close()
				if status := p.wait(t); status != 0 {
					t.Errorf("session %q ends with %d", name, status)
				}
			}
			if e := h.last("personality"); e.Verdict != audit.VerdictKilled || e.RuleID != "kill[0]" || e.UID != 2*4242 {
				t.Errorf("the kill's event is %+v", e)
			}
			if e := h.last("execve"); e.Exe != private.Guest || e.PID == 0 {
				t.Errorf("an exec's event is %+v", e)
			}
			h.send(channel.Stop{})
			if text := h.ended(); text != "" {
				t.Errorf("Stop ends with %q", text)
			}
			if status := h.resident.wait(t); status != 0 {
				t.Errorf("the resident ends with %d, stderr %q", status, h.resident.stderr)
			}
			// What is still there is refused.
			if got := h.c.init.ask(t, "opens 3 /etc/passwd"); got != fmt.Sprintf("0 %d", unix.ENOSYS) {
				t.Errorf("after Stop: %q", got)
			}
			if got := h.c.init.ask(t, "deny 1"); got != fmt.Sprintf("1 %d", unix.ENOSYS) {
				t.Errorf("a denial after Stop: %q", got)
			}
		})
	}
}

// TestLaunchFails has launches that end without a workload; the container goes on.
func TestLaunchFails(t *testing.T) {
	h := stand(t, options{ordered: true})
	started := func(exec string, p *plan.Plan, argv ...string) (uint64, *process) {
		token := rendezvous.NewToken()
		id := h.expect(exec, token, p)
		return id, h.c.start(command(token, argv...), h.c.caps, nil)
	}
	t.Run("no such file", func(t *testing.T) {
		id, p := started("a", testPlan(), "nothing")
		failed := h.arm(id)
		if failed == nil || failed.Stage != uint8(plan.StageNotFound) || failed.Arg != "nothing" || failed.Text != "" {
			t.Errorf("Failed is %+v", failed)
		}
		if status := p.wait(t); status != 255 {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		for _, when := range []string{"before it connects", "when it was found"} {
			var id uint64
			var p *process
			if when == "before it connects" {
				id = h.expect("b", rendezvous.NewToken(), testPlan())
			} else {
				id, p = started("b", testPlan(), "workload")
				h.await("found", func() bool { return h.of(id).found != nil })
			}
			h.send(channel.Cancel{ID: id})
			h.await("the end", func() bool { return h.of(id).failed != nil })
			if text := h.heard(id).failed.Text; text == "" || h.heard(id).armed {
				t.Errorf("%s: %q", when, text)
			}
			if p != nil && p.wait(t) != 255 {
				t.Errorf("%s: exit status %d", when, p.wait(t))
			}
		}
	})
	t.Run("killed", func(t *testing.T) {
		id, p := started("c", testPlan(), "workload")
		h.await("found", func() bool { return h.of(id).found != nil })
		p.kill()
		h.send(channel.Arm{ID: id})
		h.await("the end", func() bool { return h.of(id).failed != nil })
	})
	t.Run("a plan that is none", func(t *testing.T) {
		frame := plan.AppendHeader(nil, plan.TypeHello, 4)
		h.nextID++
		h.send(channel.Expect{ID: h.nextID, Exec: "d", Token: "token", Plan: append(frame, "text"...)})
		h.await("the end", func() bool { return h.of(h.nextID).failed != nil })
	})
	t.Run("a launch that is over", func(t *testing.T) {
		h.send(channel.Cancel{ID: 1})
		h.send(channel.Arm{ID: 2})
		h.send(channel.Cancel{ID: 4711})
	})
	p := h.exec("e", 0, "workload")
	if got := p.ask(t, "opens 2 /etc/passwd"); got != "2 0" {
		t.Errorf("afterwards: %q", got)
	}
}

// TestLauncherFirst has an exec's launcher that connects before the resident hears of it.
func TestLauncherFirst(t *testing.T) {
	h := stand(t, options{ordered: true})
	token := rendezvous.NewToken()
	p := h.c.start(command(token, "workload"), h.c.caps, nil)
	time.Sleep(100 * time.Millisecond)
	if failed := h.arm(h.expect("early", token, testPlan())); failed != nil {
		t.Fatalf("%+v; stderr %q", failed, p.stderr)
	}
	if got := p.ask(t, "opens 2 /etc/passwd"); got != "2 0" {
		t.Errorf("it answers %q", got)
	}
}

// TestKillInit: the container's first process takes no signal from its resident, so the host is asked; the call is never
// answered.
func TestKillInit(t *testing.T) {
	h := stand(t, options{ordered: true})
	h.c.init.post(t, "killself")
	h.await("KillInit", func() bool { return len(h.said) == 2 && h.said[1] == channel.KillInit{} })
	if e := h.last("personality"); e.Verdict != audit.VerdictKilled || e.PID != 1 || e.Errno != "" {
		t.Errorf("event %+v", e)
	}
	answered := make(chan string, 1)
	go func() { answered <- h.c.init.answer(t) }()
	select {
	case got := <-answered:
		t.Errorf("the call is answered: %q", got)
	case <-time.After(100 * time.Millisecond):
	}
	h.c.kill()
	if got := <-answered; got != "" {
		t.Errorf("the process goes on: %q", got)
	}
}
