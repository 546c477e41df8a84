// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/integration/stand"
)

// What a hostile workload tries. The promises are listed in docs/threat-model.md.

// Between its execve and its first instructions the launcher of an exec session is an ordinary process without a filter,
// and of the workload's own user. The workload must never get at its memory.
func TestLauncherCannotBeHijacked(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		for name, modify := range map[string]func(*runtimeapi.ContainerConfig){
			"root":   nil,
			"no-new": func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.NoNewPrivs = true },
			"user": func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 4242}
			},
		} {
			c := p.run(stand.ContainerConfig{Name: name, Command: []string{"workload", "hijack", "2"}, Modify: modify})
			h.eventually("the end of the search", func() error { // which has launchers to find meanwhile
				_, _ = c.Exec(h.ctx, "true") // fails when the search has ended
				if out := c.written(); !strings.Contains(out, "refused") {
					return fmt.Errorf("it has written %q", out)
				}
				return nil
			})
			if out := c.output(); strings.Contains(out, "opened") || !strings.Contains(out, "refused true") {
				t.Errorf("%s: %s", name, out)
			}
		}
	})
}

// The containers of a pod may share the pause container's pid namespace, and that one has no filter of ours: a process
// that could write its memory would run there unseen.
func TestPauseCannotBeHijacked(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline, Modify: func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 0}
		}})
		c := p.run(stand.ContainerConfig{
			Command: []string{"sh", "-c", "cat /proc/1/comm; grep -E 'Seccomp:|CapPrm' /proc/1/status; : 3<>/proc/1/mem && echo opened"},
			Modify: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
			},
		})
		c.wait()
		if out := c.written(); strings.Contains(out, "opened") || !strings.Contains(out, "mem") {
			t.Errorf("output %s", out)
		}
	})
}

// Names of the workload's making stay values: no record is forged, none is torn, and the chain holds.
func TestNamesAreOnlyValues(t *testing.T) {
	const name = "x\n{\"v\":1}"
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		p.shell("mkdir /tmp/d; f=\"/tmp/d/$(printf 'x\\n{\"v\":1}')\"; cp /bin/workload \"$f\"; \"$f\" syscall ptrace; \"$f\" syscall getpid \"$(printf '1\\377')\"; true").output()
		events := p.events("main") // fails for a line that is no record, and for a gap in seq
		e := want(t, events, "denial by a program of that name", func(e stand.Event) bool {
			return denied("ptrace", "no-ptrace")(e) && e.Comm == name
		})
		if exe, _ := e.Fields["exe"].(string); exe != "/tmp/d/"+name {
			t.Errorf("exe %q", exe)
		}
		for _, e := range events {
			if e.Fields["containerID"] == nil || e.Kind == "" {
				t.Errorf("forged: %s", e.Raw)
			}
		}
		dirs, err := p.StreamDirs(baseline)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := segment.CheckChain(dirs["main"]); err != nil {
			t.Error(err)
		}
	})
}

// A pod's annotations select a profile and do nothing else: CRI's own, given by the pod, do not make its container a
// pause container, which would have no filter, nor put its events under another name.
func TestAnnotationsOfThePod(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		forged := map[string]string{
			"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-namespace": "../../etc",
			"io.kubernetes.cri.container-name": "../other", "metsuke.dev/profile": "baseline",
		}
		p := h.pod(stand.PodConfig{Handler: baseline, Annotations: forged})
		c := p.run(stand.ContainerConfig{
			Command: []string{"cat", "/proc/self/status"},
			Modify:  func(c *runtimeapi.ContainerConfig) { c.Annotations = forged },
		})
		if out := c.output(); field(out, "Seccomp") != "2" {
			t.Errorf("no filter: %s", out)
		}
		if e := p.events("main")[0]; e.Container != "main" || e.Fields["namespace"] != "default" {
			t.Errorf("identity: %s", e.Raw)
		}
	})
}

// Sessions that begin while the workload does nothing but fork and exec are filtered like any other, and a session's
// argv, however long, is one record of bounded size.
func TestExecUnderStorm(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.shell("while :; do (:); /bin/true; done")
		for range 4 {
			if out := c.exec("cat", "/proc/self/status"); field(out, "Seccomp") != "2" || field(out, "NoNewPrivs") != "1" {
				t.Errorf("no filter: %s", out)
			}
		}
		c.exec("true", strings.Repeat("\x01", 100<<10))
		for _, e := range p.events("main") {
			if len(e.Raw) > 64<<10 {
				t.Errorf("%s record of %d bytes", e.Kind, len(e.Raw))
			}
		}
	})
}

// The numbers of 32-bit x86 mean other calls, so a filter of native numbers alone would let them pass unseen.
func TestForeignCallsAreRefused(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		const socketcall, getpid = "102", "20"
		if out := p.shell("workload foreign " + socketcall + "; workload foreign " + getpid).output(); out != "-38\n-38\n" {
			t.Errorf("output %q, want ENOSYS twice", out)
		}
		if runtime.GOARCH == "amd64" {
			want(t, p.events("main"), "denial under its own name", func(e stand.Event) bool {
				return e.Verdict == "denied" && e.Syscall == "socketcall" && e.Fields["arch"] == "SCMP_ARCH_X86"
			})
		}
	})
}
