// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// In these tests the container's own process is the attacker: root, with a container's default capabilities.

// stillServes fails the test if the resident does not serve as before.
func (h *host) stillServes() {
	h.t.Helper()
	if got := h.c.init.ask(h.t, "opens 2 /etc/passwd"); got != "2 0" {
		h.t.Errorf("opens: %q", got)
	}
	name := fmt.Sprint("after-", h.nextID)
	p := h.exec(name, 4242, "workload")
	if got := p.ask(h.t, "opens 1 /%s", name); got != fmt.Sprintf("0 %d", unix.ENOENT) || h.calls("openat", "/"+name) != 1 {
		h.t.Errorf("a new session's call: %q, %d events", got, h.calls("openat", "/"+name))
	}
	p.stdin.Close()
	p.wait(h.t)
	h.nextID++
	id := h.nextID
	h.send(channel.Control{ID: id, Helper: true})
	h.await("a report", func() bool { return h.of(id).report != nil })
	if r := h.heard(id).report; r.Problem != "" {
		h.t.Errorf("report: %s", r.Problem)
	}
}

// TestKillResident: root can. Then the kernel refuses what would be unwatched, and the host sees the channel end.
func TestKillResident(t *testing.T) {
	h := stand(t, options{ordered: true})
	other := h.exec("other", 4242, "workload")
	other.try(t, unix.EPERM, "kill %d %d", h.resident.pid(t), unix.SIGKILL) // another user cannot
	h.stillServes()
	h.c.init.try(t, 0, "kill %d %d", h.resident.pid(t), unix.SIGKILL)
	h.ended()
	for _, p := range []*process{h.c.init, other} {
		if got := p.ask(t, "opens 2 /etc/passwd"); got != fmt.Sprintf("0 %d", unix.ENOSYS) {
			t.Errorf("opens: %q, want ENOSYS", got)
		}
		if got := p.ask(t, "deny 1"); got != fmt.Sprintf("1 %d", unix.ENOSYS) {
			t.Errorf("a denied call: %q, want ENOSYS", got)
		}
	}
	h.c.init.try(t, unix.ENOENT, "access /none") // what is not notified goes on
	if got := h.c.init.ask(t, "run /bin/workload exit 0"); got != "127" {
		t.Errorf("exec: %q", got)
	}
}

// TestSignals sends the resident every signal that can be ignored, in both ways: the Go runtime asks where one comes from.
func TestSignals(t *testing.T) {
	h := stand(t, options{ordered: true})
	pid := h.resident.pid(t)
	for sig := 1; sig <= 64; sig++ {
		if s := unix.Signal(sig); s != unix.SIGKILL && s != unix.SIGSTOP {
			for _, how := range []string{"kill", "queue"} {
				h.c.init.try(t, 0, "%s %d %d", how, pid, sig)
				if got := h.c.init.ask(t, "opens 1 /etc/passwd"); got != "1 0" {
					t.Fatalf("after %s of signal %d: %q", how, sig, got)
				}
			}
		}
	}
	h.stillServes()
	if text := h.resident.stderr.String(); text != "" {
		t.Errorf("the resident prints %q", text)
	}
}

// TestStopResident: calls that need an answer wait for it as long as the resident is stopped.
func TestStopResident(t *testing.T) {
	h := stand(t, options{ordered: true})
	other := h.exec("other", 0, "workload")
	other.try(t, 0, "kill %d %d", h.resident.pid(t), unix.SIGSTOP)
	h.resident.stopped(t)
	for _, command := range []string{"opens 1 /etc/passwd", "deny 1"} {
		h.c.init.post(t, "%s", command)
	}
	answered := make(chan string, 2)
	go func() {
		answered <- h.c.init.answer(t)
		answered <- h.c.init.answer(t)
	}()
	select {
	case got := <-answered:
		t.Fatalf("a call goes on while the resident is stopped: %q", got)
	case <-time.After(100 * time.Millisecond):
	}
	other.try(t, 0, "kill %d %d", h.resident.pid(t), unix.SIGCONT)
	for _, want := range []string{"1 0", "1 13"} {
		if got := <-answered; got != want {
			t.Errorf("answer %q, want %q", got, want)
		}
	}
	h.stillServes()
}

// TestResidentIsClosed tries to get into the resident.
func TestResidentIsClosed(t *testing.T) {
	h := stand(t, options{ordered: true})
	user := h.exec("user", 4242, "workload")
	pid := h.resident.pid(t)
	for name, p := range map[string]*process{"root": h.c.init, "user": user} {
		t.Run(name, func(t *testing.T) {
			p.try(t, unix.EPERM, "attach %d", pid)
			p.try(t, unix.EPERM, "limit %d", pid)
			for _, file := range []string{"fd/0", "fd/1", "exe", "cwd", "root", "ns/mnt"} {
				if got := p.ask(t, "link /proc/%d/%s", pid, file); got != "13" && got != "1" {
					t.Errorf("link %s: errno %s", file, got)
				}
			}
			p.try(t, unix.EACCES, "write /proc/%d/mem x", pid)
			p.try(t, unix.EACCES, "write /proc/%d/fd/0 x", pid)
		})
	}
	// Not by way of its threads either.
	h.c.init.try(t, unix.EACCES, "write /proc/%d/task/%d/mem x", pid, pid)
	h.stillServes()
}

// TestStolenToken: the workload reads the token of a launch that is expected, and is faster than the launcher.
func TestStolenToken(t *testing.T) {
	h := stand(t, options{ordered: true})
	for name, steal := range map[string]func(t *testing.T, token string){
		"none":         func(t *testing.T, _ string) { h.c.init.try(t, 0, "hello %d %s", plan.Version, rendezvous.NewToken()) },
		"as it is":     func(t *testing.T, token string) { h.c.init.try(t, 0, "hello %d %s", plan.Version, token) },
		"many times":   func(t *testing.T, token string) { manyTimes(t, h, token) },
		"in a helper":  func(t *testing.T, token string) { h.inHelper(t, token) },
		"and all else": func(t *testing.T, token string) { h.inHelper(t, token); manyTimes(t, h, token) },
	} {
		t.Run(name, func(t *testing.T) {
			token := rendezvous.NewToken()
			id := h.expect(name, token, testPlan())
			steal(t, token)
			if w := h.heard(id); w.found != nil || w.failed != nil {
				t.Fatalf("the workload was taken for the launcher: %+v", w)
			}
			p := h.c.start(command(token, "workload"), h.c.caps, nil)
			if failed := h.arm(id); failed != nil {
				t.Fatalf("the launcher is refused: %+v", failed)
			}
			if found := h.heard(id).found; int(found.PID) != p.pid(t) {
				t.Errorf("found process %d, want %d", found.PID, p.pid(t))
			}
		})
	}
	h.stillServes()
}

func manyTimes(t *testing.T, h *host, token string) {
	for range 20 {
		h.c.init.try(t, 0, "hello %d %s", plan.Version, token)
	}
}

// inHelper has the workload run the helper: what it starts stands under its filter, too.
func (h *host) inHelper(t *testing.T, token string) {
	t.Helper()
	h.c.init.try(t, 255, "run %s run %s -- /bin/workload exit 0", private.Guest, token)
}

// TestFlood has processes that connect to the socket as fast as they can, while sessions are started and served.
func TestFlood(t *testing.T) {
	h := stand(t, options{ordered: true})
	other := h.exec("other", 0, "workload")
	other.try(t, 40, "flood 40")
	for range 3 {
		h.stillServes()
	}
	if got := threads(t, h); got > channel.ResidentTasks {
		t.Errorf("%d threads, %d at the start", got, h.ready.Tasks)
	}
}

// TestDirectoryIsSealed tries to change what is at /.metsuke.
func TestDirectoryIsSealed(t *testing.T) {
	h := stand(t, options{ordered: true})
	user := h.exec("user", 4242, "workload")
	for _, p := range []*process{h.c.init, user} {
		for command, errnos := range map[string][]unix.Errno{
			"rename /.metsuke /gone/x":            {unix.EBUSY, unix.EACCES},
			"rename /.metsuke/sock /gone/x":       {unix.EXDEV, unix.EROFS},
			"unlink /.metsuke/sock":               {unix.EROFS},
			"unlink /.metsuke/guest":              {unix.EROFS, unix.EBUSY},
			"mkdir /.metsuke/x":                   {unix.EROFS},
			"write /.metsuke/guest x":             {unix.EROFS, unix.ETXTBSY, unix.EACCES},
			"write /.metsuke/sock x":              {unix.ENXIO},
			"umount /.metsuke":                    {unix.EPERM},
			"umount /.metsuke/guest":              {unix.EPERM},
			"remount /.metsuke":                   {unix.EPERM},
			"mount tmpfs /.metsuke":               {unix.EPERM},
			"bind /bin/workload " + private.Guest: {unix.EPERM},
			"unshare":                             {unix.EPERM},
		} {
			got := p.ask(t, "%s", command)
			ok := false
			for _, errno := range errnos {
				ok = ok || got == fmt.Sprint(int(errno))
			}
			if !ok {
				t.Errorf("%s: errno %s, want one of %v", command, got, errnos)
			}
		}
	}
	h.stillServes()
}

// TestMovedMounts has a workload that may mount, which no profile that keeps CAP_SYS_ADMIN without its calls allows. It is
// seen before the next session, which is refused; what is served already goes on.
func TestMovedMounts(t *testing.T) {
	for name, tricks := range map[string][]string{
		"covered":                      {"mount tmpfs /.metsuke"},
		"helper covered":               {"bind /bin/workload /.metsuke/guest"},
		"unmounted":                    {"umount /.metsuke"},
		"writable":                     {"remount /.metsuke"},
		"helper writable":              {"remount /.metsuke/guest"},
		"in a namespace of init's own": {"unshare", "private /", "mount tmpfs /.metsuke"},
	} {
		t.Run(name, func(t *testing.T) {
			token := rendezvous.NewToken()
			c := newContainer(t, nil, private.Guest, "run", token, "--", "workload")
			h := standing(t, c, options{ordered: true})
			p := testPlan()
			p.Caps.Bounding |= bits(unix.CAP_SYS_ADMIN)
			p.Caps.Effective = p.Caps.Bounding
			if failed := h.arm(h.expect("", token, p)); failed != nil {
				t.Fatal(failed)
			}
			h.send(channel.Control{ID: 100, Helper: true})
			h.await("a report", func() bool { return h.of(100).report != nil })
			if problem := h.heard(100).report.Problem; problem != "" {
				t.Fatalf("too early: %s", problem)
			}
			for _, trick := range tricks {
				h.c.init.try(t, 0, "%s", trick)
			}
			h.send(channel.Control{ID: 101, Helper: true})
			h.send(channel.Control{ID: 102}) // what an Update asks for does not depend on the helper
			id := h.expect("late", rendezvous.NewToken(), testPlan())
			h.await("an answer", func() bool { return h.of(102).report != nil && h.of(id).failed != nil })
			if problem := h.heard(101).report.Problem; problem == "" {
				t.Error("Control reports no problem")
			}
			if problem := h.heard(102).report.Problem; problem != "" {
				t.Errorf("an Update would fail: %s", problem)
			}
			if text := h.heard(id).failed.Text; text == "" {
				t.Errorf("the session ends with %+v", h.heard(id).failed)
			}
			if got := h.c.init.ask(t, "opens 2 /etc/passwd"); got != "2 0" {
				t.Errorf("opens: %q", got)
			}
		})
	}
}
