// SPDX-License-Identifier: Apache-2.0

//go:build node

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// These tests need cgroup v2 with all controllers, which the node VM has: `make node-vm`.

const everyLimit = `
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: every-limit}
spec:
  extends: [baseline]
  limits:
    {cpu: 500m, cpuWeight: 50, cpuset: "0", memory: 64Mi, memoryHigh: 48Mi, swap: "0", pids: 40, hugepages: {2MB: "0"}, io: {/dev/loop0: {readBPS: 1Mi, writeIOPS: 100}}}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: every-limit}
spec: {namespaces: [every-limit], default: every-limit}
`

// inForce are the files of every-limit's values. The pids limit may be higher by the tasks of a supervisor.
var inForce = map[string]string{
	"cpu.max": "50000 100000", "cpu.weight": "50", "cpuset.cpus": "0", "memory.max": "67108864", "memory.high": "50331648",
	"memory.swap.max": "0", "hugetlb.2MB.max": "0", "io.max": "7:0 rbps=1048576 wbps=max riops=max wiops=100",
}

func TestEveryLimit(t *testing.T) {
	if out, err := exec.Command("modprobe", "loop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eachVersion(t, func(t *testing.T, h *harness) {
		file := filepath.Join(h.ProfilesDir(tuned), "every-limit.yaml")
		if err := os.WriteFile(file, []byte(everyLimit), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		p := h.pod(stand.PodConfig{Handler: tuned, Namespace: "every-limit"})
		c := p.run(stand.ContainerConfig{
			Command: []string{"workload", "pause"},
			Limits: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 1 << 30, MemorySwapLimitInBytes: 2 << 30, CpuPeriod: 100000, CpuQuota: 400000, CpuShares: 4096,
				Unified: map[string]string{"memory.high": "max", "pids.max": "1000"},
			},
		})
		start := p.events("main")[0]
		for _, name := range []string{"cpu", "cpuWeight", "cpuset", "memory", "memoryHigh", "swap", "pids", "hugepages 2MB", "io 7:0 rbps", "io 7:0 wiops"} {
			if !strings.Contains(start.Raw, fmt.Sprintf(`"name":%q`, name)) {
				t.Errorf("the receipt has no limit %s: %s", name, start.Raw)
			}
		}
		check := func(when string) {
			t.Helper()
			for file, want := range inForce {
				if got := strings.TrimSpace(c.exec("cat", "/sys/fs/cgroup/"+file)); got != want {
					t.Errorf("%s: %s has %q, want %q", when, file, got, want)
				}
			}
		}
		check("at start")
		_, err := h.Runtime.UpdateContainerResources(h.ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: 512 << 20, MemorySwapLimitInBytes: 1 << 30, CpuPeriod: 100000, CpuQuota: 200000, CpuShares: 2048, CpusetCpus: "0-1",
				Unified: map[string]string{"memory.high": "max", "pids.max": "1000", "io.max": "7:0 rbps=max"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		check("after an update that asks for more")
	})
}

// An OOM kill is in the stream before the end that it caused, whichever of the delegate's two events comes first. Several
// at once make the shims late.
func TestOOMComesBeforeExit(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned})
		hogs := map[string]*container{}
		for i := range 6 {
			name := fmt.Sprintf("hog%d", i)
			hogs[name] = p.run(stand.ContainerConfig{Name: name, Command: []string{"workload", "memory", "100"}})
		}
		for name, hog := range hogs {
			hog.wait()
			var kinds []string
			h.eventually("exit record", func() error {
				kinds = nil
				for _, e := range p.events(name) {
					kinds = append(kinds, e.Kind)
					if e.Kind == "exit" {
						kinds = append(kinds, fmt.Sprint(e.Fields["cause"]))
						return nil
					}
				}
				return fmt.Errorf("there are %v", kinds)
			})
			if got := strings.Join(kinds[max(0, len(kinds)-3):], " "); got != "oom exit oom" {
				t.Errorf("%s: the stream ends with %q", name, got)
			}
		}
	})
}
