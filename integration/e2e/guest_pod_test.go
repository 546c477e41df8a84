// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// Residents in pods of several containers: each has its own, which answers for it alone.

// sharing is a pod whose containers share a pid namespace, the pause container's.
func (h *harness) sharing(handler string) *pod {
	h.t.Helper()
	return h.pod(stand.PodConfig{Handler: handler, Modify: func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}
	}})
}

func shares(c *runtimeapi.ContainerConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
}

// A container that shares a pid namespace with others sees their residents and launchers. It gets into none of them, cannot pass
// for a launcher of theirs, and if it kills their resident, they are killed, and only they.
func TestResidentOfAnotherContainer(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.sharing(attacked)
		attacker := p.run(stand.ContainerConfig{Name: "attacker", Command: []string{"sh", "-c", "while :; do sleep 0.1; done"}, Modify: shares})
		other := p.run(stand.ContainerConfig{Name: "other", Command: []string{"sh", "-c", "while :; do sleep 0.1; done"}, Modify: shares})

		out := attacker.exec("workload", "resident", "enter")
		for line := range strings.Lines(out) {
			if strings.HasSuffix(line, ": done\n") {
				t.Errorf("into a resident: %s", line)
			}
		}
		if n := strings.Count(out, "ptrace: "); n != 2 {
			t.Errorf("%d residents in the pod, want 2:\n%s", n, out)
		}

		// While the other container's exec sessions begin.
		for _, attack := range [][]string{{"workload", "hijack", "5"}, {"workload", "impersonate", "3", "300"}} {
			done := make(chan string)
			go func() {
				result, err := attacker.Exec(h.ctx, attack...)
				if err != nil {
					result.Stdout = err.Error()
				}
				done <- result.Stdout
			}()
			for {
				select {
				case out := <-done:
					if strings.Contains(out, "opened") || strings.Contains(out, "impersonated") || !strings.Contains(out, "true\n") {
						t.Errorf("%v: %s", attack, out)
					}
				default:
					if out := other.exec("cat", "/proc/self/status"); field(out, "Seccomp") != "2" {
						t.Errorf("exec: %s", out)
					}
					continue
				}
				break
			}
		}

		// The newest resident is the other container's.
		attacker.exec("workload", "resident", "newest", "9")
		other.exited()
		p.loses("other", "kill")
		if out := attacker.exec("sh", "-c", "echo x > /tmp/f; echo fine"); out != "fine\n" {
			t.Errorf("the attacker's own: %q", out)
		}
		want(t, p.events("attacker"), "the file", wrote("/tmp/f"))
	})
}

// Containers of all the kinds that a pod has, one after another and at the same time: those that end before the next begins, one
// that is in the pid namespace of another, one that comes again.
func TestResidentOfEachContainer(t *testing.T) {
	inGuest(t)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		for _, name := range []string{"init-1", "init-2"} {
			p.run(stand.ContainerConfig{Name: name, Command: []string{"sh", "-c", "echo x > /tmp/f"}}).output()
			want(t, p.events(name), name, wrote("/tmp/f"))
		}
		main := p.run(stand.ContainerConfig{Command: []string{"workload", "pause"}})
		side := p.run(stand.ContainerConfig{Name: "sidecar", Command: []string{"workload", "pause"}})
		debug := p.run(stand.ContainerConfig{
			Name: "debugger", Command: []string{"sh", "-c", "workload resident enter; workload resident newest 9; echo x > /tmp/f"},
			Modify: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
				c.Linux.SecurityContext.NamespaceOptions.TargetId = main.ID
			},
		})
		debug.wait() // its own resident is the newest
		seen := 2
		if delegate == stand.Kata {
			seen = 1 // it gives no container the pid namespace of another
		}
		if out := debug.written(); strings.Contains(out, "mem: done") || strings.Count(out, "ptrace: ") != seen {
			t.Errorf("the debugger: %s", out)
		}
		for name, c := range map[string]*container{"main": main, "sidecar": side} {
			if out := c.exec("sh", "-c", "echo x > /tmp/f; grep Seccomp: /proc/self/status"); field(out, "Seccomp") != "2" {
				t.Errorf("%s: %s", name, out)
			}
			want(t, p.events(name), name, wrote("/tmp/f"))
		}
		if err := side.Stop(h.ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := side.Remove(h.ctx); err != nil {
			t.Fatal(err)
		}
		again := p.run(stand.ContainerConfig{Name: "sidecar", Command: []string{"sh", "-c", "echo x > /tmp/again"}})
		again.output()
		want(t, p.events("sidecar"), "again", wrote("/tmp/again"))
		for _, name := range []string{"main", "sidecar", "init-1"} {
			for _, e := range p.events(name) {
				if e.Kind == "loss" {
					t.Errorf("%s: %s", name, e.Raw)
				}
			}
		}
	})
}

// What the resident needed of the container's cgroup is gone when the workload runs, and nothing of it can be written to.
func TestNoCgroupFileIsWritable(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked})
		out := p.shell("grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d ' ' -f 5,6; ls -a /.metsuke*; " +
			"for f in $(find / -name cgroup.procs 2>/dev/null); do echo $$ 2>/dev/null > $f && echo wrote $f; done; echo end").output()
		for line := range strings.Lines(out) {
			if _, options, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(options, "ro") {
				t.Errorf("writable, or written: %s", line)
			}
			if strings.TrimSpace(line) == "cgroup" {
				t.Errorf("left in the private directory: %s", out)
			}
		}
		if !strings.HasSuffix(out, "end\n") {
			t.Error(out)
		}
	})
}
