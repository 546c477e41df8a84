// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// The delegate alone: what the other tests compare with, and the proof that the stand itself stands.

func TestDelegateRuns(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{})
		if out := p.shell("echo out; echo err >&2; cat /proc/self/status").output(); !strings.Contains(out, "out\n") ||
			!strings.Contains(out, "err\n") || field(out, "Seccomp") != "0" {
			t.Errorf("output %q", out)
		}
		c := p.run(stand.ContainerConfig{Name: "second", Command: []string{"sh", "-c", "exit 7"}})
		if status := c.wait(); status.GetExitCode() != 7 {
			t.Errorf("exit status %d, want 7", status.GetExitCode())
		}
		idle := p.run(stand.ContainerConfig{Name: "third", Command: []string{"workload", "pause"}})
		if out := idle.exec("echo", "hello"); out != "hello\n" {
			t.Errorf("exec wrote %q", out)
		}
	})
}

// Under runc a container's processes are the host's; TestKataGuest has the contrary.
func TestRuncSharesTheKernel(t *testing.T) {
	only(t, stand.Runc)
	eachVersion(t, func(t *testing.T, h *harness) {
		idle := h.pod(stand.PodConfig{}).idle()
		pid, err := idle.PID(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		h.eventually("the process", func() error { // it is runc's until it has exec'd
			if found := stand.Processes("workload pause"); !slices.Contains(found, pid) {
				return fmt.Errorf("process %d of the container is not among %v", pid, found)
			}
			return nil
		})
	})
}

func TestDelegateScratchImage(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		c := h.pod(stand.PodConfig{}).run(stand.ContainerConfig{Image: stand.ImageScratch, Args: []string{"syscall", "mount"}})
		if out := c.output(); out != "mount: EPERM\n" && out != "mount: EFAULT\n" {
			t.Errorf("output %q", out)
		}
	})
}

// Pods outlive containerd: killed and started again, it has them back.
func TestDelegateSurvivesContainerd(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		c := h.pod(stand.PodConfig{}).idle()
		if err := h.StopContainerd(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := h.StartContainerd(h.ctx); err != nil {
			t.Fatal(err)
		}
		if out := c.exec("echo", "back"); out != "back\n" {
			t.Errorf("exec wrote %q", out)
		}
	})
}

// The stand must not show anything of the machine: what the leak check sees is what it reports.
func TestStandIsItsOwn(t *testing.T) {
	if os.Getpid() == 1 {
		t.Error("the test binary is process 1: nothing would reap")
	}
	if got := stand.Processes("/sbin/init"); len(got) != 0 {
		t.Errorf("the machine's init is visible: %v", got)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name := link.Name; name != "lo" && !strings.HasPrefix(name, "stand") {
			t.Errorf("network link %s is visible", name)
		}
	}
}
