// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// Limits that Kata drops on the way, or lifts with an Update that is about something else: the resident has to put them in force,
// each time. (Those of runc on cgroup v2: TestEveryLimit. That of pids on any: TestLimits.)
func TestLimitsThatKataDrops(t *testing.T) {
	only(t, stand.Kata)
	eachVersion(t, func(t *testing.T, h *harness) {
		h.profile(tuned, "dropped", `limits: {memory: 64Mi, memoryHigh: 48Mi, swap: 8Mi, pids: 24}`)
		p := h.pod(stand.PodConfig{Handler: tuned, Namespace: "dropped"})
		c := p.run(stand.ContainerConfig{
			Command: []string{"workload", "pause"},
			Limits: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 1 << 30, MemorySwapLimitInBytes: 2 << 30, CpuPeriod: 100000, CpuQuota: 400000,
				Unified: map[string]string{"memory.high": "max", "pids.max": "1000"},
			},
		})
		wantLimits(t, p.events("main")[0], map[string]string{"memory": "67108864", "memoryHigh": "50331648", "swap": "8388608", "pids": "24"})
		inForce := func(when string) {
			t.Helper()
			// The resident's tasks have a place of their own, beside the workload's 24 (channel.ResidentTasks).
			for file, want := range map[string]string{
				"memory.max": "67108864", "memory.high": "50331648", "memory.swap.max": "8388608", "pids.max": "72",
			} {
				if got := strings.TrimSpace(c.exec("cat", "/sys/fs/cgroup/"+file)); got != want {
					t.Errorf("%s: %s has %q, want %q", when, file, got, want)
				}
			}
			c.forksTooMany(when)
		}
		inForce("at start")

		// CRI's Update repeats all that the pod has asked for; that of a task has what it is about and nothing else.
		quota, period := int64(20000), uint64(100000)
		if err := c.updateTask(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(c.exec("cat", "/sys/fs/cgroup/cpu.max")); got != "20000 100000" {
			t.Errorf("cpu.max has %q: the Update did not arrive", got)
		}
		inForce("after an Update of the CPU")

		_, err := h.Runtime.UpdateContainerResources(h.ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 512 << 20, MemorySwapLimitInBytes: 1 << 30,
				Unified: map[string]string{"memory.high": "max", "pids.max": "1000"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		inForce("after an Update that asks for more")
		for _, resource := range []string{"memory", "memoryHigh", "swap", "pids"} {
			want(t, p.events("main"), resource+" lowered at update", func(e stand.Event) bool {
				return e.Kind == "limit" && e.Fields["operation"] == "update" && e.Fields["resource"] == resource
			})
		}
	})
}

// wantLimits fails the test unless the receipt says of these limits that they were asked for and found in force.
func wantLimits(t *testing.T, start stand.Event, limits map[string]string) {
	t.Helper()
	found := map[string]string{}
	list, _ := start.Fields["limits"].([]any)
	for _, entry := range list {
		if l, ok := entry.(map[string]any); ok {
			found[fmt.Sprint(l["name"])] = fmt.Sprintf("asked %v, found %v", l["asked"], l["found"])
		}
	}
	for name, value := range limits {
		if want := fmt.Sprintf("asked %[1]s, found %[1]s", value); found[name] != want {
			t.Errorf("the receipt says of %s: %q, want %q", name, found[name], want)
		}
	}
}

// forksTooMany waits until the limit of pids refuses a fork in the container. The Go runtime of the program that forks may fail to
// get its threads, and says so in other words.
func (c *container) forksTooMany(when string) {
	c.p.h.t.Helper()
	c.p.h.eventually(when+": a fork that the limit of pids refuses", func() error {
		result, err := c.Exec(c.p.h.ctx, "workload", "fork", "100")
		if err == nil && !strings.Contains(result.Stdout, "resource temporarily unavailable") {
			err = fmt.Errorf("%+v", result)
		}
		return err
	})
}

// updateTask is containerd's Update of a task, with these resources and no others.
func (c *container) updateTask(r *specs.LinuxResources) error {
	task, closeClient := c.task()
	defer closeClient()
	return task.Update(c.p.h.ctx, containerd.WithResources(r))
}
