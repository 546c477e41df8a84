// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// Kata alone: what the other tests compare with, and the proof that a pod of Kata's runs in a guest of its own.

// startServices starts the stand's DNS server and web server, which then run as long as the tests.
var startServices = sync.OnceValue(stand.StartServices)

func TestKataGuest(t *testing.T) {
	only(t, stand.Kata)
	if err := startServices(); err != nil {
		t.Fatal(err)
	}
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{})
		out := p.shell("echo out; echo err >&2; uname -r").output()
		if !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") || strings.Contains(out, kernelRelease(t)) {
			t.Errorf("the kernel should be another one than %s, and both streams in the log:\n%s", kernelRelease(t), out)
		}
		c := p.run(stand.ContainerConfig{
			Name: "idle", Command: []string{"workload", "pause"},
			Limits: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20},
		})
		if found := stand.Processes("workload pause"); len(found) != 0 {
			t.Errorf("the host sees the workload: %v", found)
		}
		result, err := c.Exec(h.ctx, "sh", "-c", "echo hello; exit 3")
		if err != nil || result.Status != 3 || result.Stdout != "hello\n" {
			t.Errorf("exec: %+v, %v", result, err)
		}
		if out := c.execInput("first\nsecond\n", "cat"); out != "first\nsecond\n" {
			t.Errorf("cat of stdin wrote %q", out)
		}
		if out := c.exec("wget", "-q", "-O", "-", "http://api.stand.test/guest"); out != "hello from the stand: GET /guest\n" {
			t.Errorf("by the pod's network came %q", out)
		}
		stats, err := h.Runtime.ContainerStats(h.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		if err != nil || stats.GetStats().GetMemory().GetWorkingSetBytes().GetValue() == 0 {
			t.Errorf("stats: %v, %v", stats, err)
		}
		limit := func() string { return strings.TrimSpace(c.exec("cat", "/sys/fs/cgroup/memory.max")) }
		if got := limit(); got != "100663296" {
			t.Errorf("memory.max in the guest is %s", got)
		}
		if _, err := h.Runtime.UpdateContainerResources(h.ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20},
		}); err != nil {
			t.Errorf("update: %v", err)
		}
		if got := limit(); got != "134217728" {
			t.Errorf("memory.max in the guest is %s after the update", got)
		}
	})
}

// A guest that dies takes its containers with it, and nothing else.
func TestKataGuestDies(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		other := h.pod(stand.PodConfig{}).idle()
		p := h.pod(stand.PodConfig{})
		c := p.idle()
		machines := p.Machines()
		if len(machines) != 1 {
			t.Fatalf("machines of the pod: %v", machines)
		}
		if err := unix.Kill(machines[0], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if status := c.wait(); status.GetExitCode() == 0 {
			t.Errorf("exit status of a container whose guest died: %v", status)
		}
		if out := other.exec("echo", "alive"); out != "alive\n" {
			t.Errorf("the other pod's exec wrote %q", out)
		}
	})
}

// The machine is as large as the pod's limits, which the kubelet gives for the whole pod. Under Metsuke a resident needs room in it
// too; and where a pod has no limits, the profile's are what the machine is made for.
func TestKataGuestSize(t *testing.T) {
	onTheStand(t)
	const reserve = 32 << 20 // residentMemory of package shim
	eachVersion(t, func(t *testing.T, h *harness) {
		type size struct{ cpus, memory int }
		of := func(handler string, limits *runtimeapi.LinuxContainerResources) (s size) {
			p := h.pod(stand.PodConfig{Handler: handler, Namespace: "sized", Modify: func(c *runtimeapi.PodSandboxConfig) { c.Linux.Resources = limits }})
			out := p.shell("grep -c ^processor /proc/cpuinfo; sed -n 's/^MemTotal: *//p' /proc/meminfo").output()
			if _, err := fmt.Sscanf(out, "%d\n%d kB\n", &s.cpus, &s.memory); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			p.remove()
			return s
		}
		limits := func(cpus, memory int64) *runtimeapi.LinuxContainerResources {
			return &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: cpus * 100000, MemoryLimitInBytes: memory}
		}
		h.profile(tuned, "sized", "limits: {cpu: \"2\", memory: 400Mi}")

		// No more CPUs than it takes: emulated ones beyond the machine's own are at times kept waiting until Kata gives the agent up.
		fewest := of("", nil)
		large := of("", limits(2, 700<<20))
		if large.cpus <= fewest.cpus || large.cpus < 2 || large.memory < 500<<10 {
			t.Errorf("%+v, where a pod without limits has %+v", large, fewest)
		}
		for name, test := range map[string]struct{ of, want size }{
			"the profile's limits": {of(tuned, nil), of("", limits(2, 400<<20+reserve))},
			"the pod's limits":     {of(tuned, limits(1, 600<<20)), of("", limits(1, 600<<20+reserve))},
		} {
			if test.of.cpus != test.want.cpus || !near(test.of.memory, test.want.memory) {
				t.Errorf("%s: %+v (memory in kB), want %+v", name, test.of, test.want)
			}
		}
	})
}

// near compares MemTotal of two machines: a kernel takes a few KiB more or less for itself, a reserve is many times that.
func near(a, b int) bool { return max(a-b, b-a) < 1<<10 }

// only ends a test that speaks of one delegate alone, where the tests run on another.
func only(t *testing.T, d *stand.Delegate) {
	t.Helper()
	if d != delegate {
		t.Skipf("speaks of the delegate %s; these tests run on %s", d.Name, delegate.Name)
	}
}

// kernelRelease is the host's.
func kernelRelease(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}
