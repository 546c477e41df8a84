// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// Pods under Metsuke in machines of their own.

// onTheStand ends a test that speaks of what only the stand's own guests do, where they are those of Kata as it is installed.
func onTheStand(t *testing.T) {
	t.Helper()
	only(t, stand.Kata)
	if !stand.OnTheStand() {
		t.Skipf("speaks of the stand's guests and their stand-in agent; these tests run on %s", delegate.About())
	}
}

// The receipt is about the kernel that the filter is in force in: the guest's, not the node's.
func TestReceiptIsOfTheGuest(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: baseline})
		release := strings.TrimSpace(p.shell("uname -r").output())
		start := p.events("main")[0]
		if start.Kind != "start" || start.Fields["kernel"] != release || release == kernelRelease(t) || start.Fields["placement"] != "guest" {
			t.Errorf("the pod's kernel is %s, the node's %s; the receipt is %s", release, kernelRelease(t), start.Raw)
		}
	})
}

// A guest that dies takes its containers and their supervisors with it. Their streams end with the exit, before which a loss has
// the count of those denials that were in no record yet; the pod goes without leaving anything; and nothing happens to another
// pod and its stream.
func TestBaselineGuestDies(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		survivor := h.pod(stand.PodConfig{Handler: baseline})
		other := survivor.idle()
		p := h.pod(stand.PodConfig{Handler: baseline})
		// One that is denied things without pause, so that they are counted; one that does nothing.
		busy := p.run(stand.ContainerConfig{Name: "busy", Command: []string{"workload", "flood", "ptrace", "1000000000"}})
		idle := p.run(stand.ContainerConfig{Name: "idle", Command: []string{"workload", "pause"}})
		h.eventually("a record of denials that were counted", func() error {
			if len(find(p.events("busy"), func(e stand.Event) bool { return e.Syscall == "ptrace" && e.Fields["count"] != nil })) == 0 {
				return fmt.Errorf("%d records", len(p.events("busy")))
			}
			return nil
		})
		machines := p.Machines()
		if len(machines) != 1 {
			t.Fatalf("machines of the pod: %v", machines)
		}
		if err := unix.Kill(machines[0], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]*container{"busy": busy, "idle": idle} {
			status := c.wait()
			if status.GetExitCode() == 0 {
				t.Errorf("%s: exit status of a container whose guest died: %v", name, status)
			}
			h.eventually("exit record", func() error {
				events := p.events(name)
				if last := stand.Last(events); last.Kind != "exit" || last.Fields["status"] != float64(status.GetExitCode()) {
					return fmt.Errorf("the last record is %s", last.Raw)
				}
				return nil
			})
			for _, e := range p.events(name) {
				if n, _ := e.Fields["count"].(float64); e.Kind == "loss" && (name == "idle" || n == 0) {
					t.Errorf("%s: %s", name, e.Raw)
				}
			}
			if result, err := c.Exec(h.ctx, "true"); err == nil {
				t.Errorf("%s: an exec session in a guest that is dead: %+v", name, result)
			}
		}
		want(t, p.events("busy"), "what was denied before", func(e stand.Event) bool { return e.Syscall == "ptrace" && e.Verdict == "denied" })
		p.remove()

		before := len(survivor.events("main"))
		if out := other.exec("workload", "syscall", "unshare", "0x10000000"); out != "unshare: EPERM\n" {
			t.Errorf("the other pod's exec wrote %q", out)
		}
		want(t, survivor.events("main")[before:], "denied in the other pod", denied("unshare", "no-namespaces"))
	})
}

// A first process that leaves its mount namespace takes no exec with it: Kata's agent gives each the namespaces that it made at
// Create. If something is in the helper's place where the process is now, execs are refused all the same. (Under runc they always
// are: TestExecAfterUnshare.)
func TestExecAfterUnshareInGuest(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned, Annotations: map[string]string{"metsuke.dev/profile": "inherits"}})
		moved := func(name, script string) *container {
			c := p.run(stand.ContainerConfig{
				Name: name, Command: []string{"unshare", "-m", "sh", "-c", script + " && echo moved; sleep 1000"},
				Modify: func(c *runtimeapi.ContainerConfig) {
					c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
				},
			})
			c.saw("moved\n")
			return c
		}
		c := moved("moves", "mount -t tmpfs none /tmp && touch /tmp/elsewhere && ls /tmp")
		lines(t, c.written(), "elsewhere")
		if out := c.exec("sh", "-c", "ls /tmp; cat /proc/self/status"); field(out, "Seccomp") != "2" || strings.Contains(out, "elsewhere") {
			t.Errorf("exec: %s", out)
		}
		c = moved("plants", `cd /.metsuke* && mount -t tmpfs none $PWD && cd $PWD && printf '#!/bin/sh\necho planted\n' > guest && chmod 755 guest && ./guest`)
		lines(t, c.written(), "planted")
		if result, err := c.Exec(h.ctx, "true"); err == nil || !strings.Contains(err.Error(), "has put something in its place") {
			t.Errorf("exec: %+v, %v", result, err)
		}
	})
}
