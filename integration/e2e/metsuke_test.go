// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// The least that Metsuke promises: the filter is in force, what baseline forbids is denied and in the stream, the stream
// begins with the receipt and the workload's own execve.
func TestBaselinePod(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: stand.HandlerBaseline})
		c := p.shell("cat /proc/self/status; workload syscall ptrace; workload syscall mount; workload syscall io_uring_setup 8")
		out := c.output()
		if field(out, "Seccomp") != "2" || field(out, "NoNewPrivs") != "1" {
			t.Errorf("no filter in force: %s", out)
		}
		for _, call := range []string{"ptrace", "mount", "io_uring_setup"} {
			if !strings.Contains(out, call+": EPERM\n") {
				t.Errorf("%s was not denied: %s", call, out)
			}
		}
		events := p.events("main")
		if len(events) < 3 || events[0].Kind != "start" {
			t.Fatalf("the stream does not begin with the receipt: %+v", events)
		}
		if first := events[1]; first.Kind != "syscall" || first.Syscall != "execve" {
			t.Errorf("first system call of the stream: %s", first.Raw)
		}
		for _, call := range []string{"ptrace", "mount", "io_uring_setup"} {
			denied := find(events, func(e stand.Event) bool { return e.Syscall == call && e.Verdict == "denied" })
			if len(denied) == 0 || denied[0].RuleID == "" {
				t.Errorf("no denial of %s, with its rule, in the stream", call)
			}
		}
		if last := stand.Last(events); last.Kind != "exit" {
			t.Errorf("the stream does not end with the exit: %s", last.Raw)
		}
	})
}

// With passthrough nothing is changed and nothing recorded.
func TestPassthroughPod(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: stand.HandlerPassthrough})
		out := p.shell("cat /proc/self/status; ls /.metsuke").wait()
		if out.GetExitCode() == 0 {
			t.Error("/.metsuke exists")
		}
		dirs, err := p.StreamDirs(p.handler)
		if err != nil || len(dirs) != 0 {
			t.Errorf("streams: %v, %v", dirs, err)
		}
		p.run(stand.ContainerConfig{Name: "second", Command: []string{"workload", "pause"}})
		if code, shown := p.shown("inspect", patient); code != 0 || shown.State != "running" || shown.Containers[0].Stream != nil ||
			shown.Containers[0].Profile != "passthrough" || shown.Containers[0].State != "running" {
			t.Errorf("inspect: code %d, %+v", code, shown)
		}
	})
}

// A session of exec is filtered too, and its events carry its ID.
func TestBaselineExec(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: stand.HandlerBaseline})
		c := p.idle()
		if out := c.exec("cat", "/proc/self/status"); field(out, "Seccomp") != "2" {
			t.Errorf("no filter in force: %s", out)
		}
		if out := c.exec("workload", "syscall", "unshare", "0x10000000"); out != "unshare: EPERM\n" {
			t.Errorf("unshare: %q", out)
		}
		denied := find(p.events("main"), func(e stand.Event) bool { return e.Syscall == "unshare" && e.Verdict == "denied" })
		if len(denied) != 1 || denied[0].Exec == "" {
			t.Errorf("denials of unshare with the session's ID: %+v", denied)
		}
	})
}

// find keeps the events that fit.
func find(events []stand.Event, fits func(stand.Event) bool) []stand.Event {
	var found []stand.Event
	for _, e := range events {
		if fits(e) {
			found = append(found, e)
		}
	}
	return found
}
