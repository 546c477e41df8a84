// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"strconv"
	"strings"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

const megabyte = 1 << 20

func TestResources(t *testing.T) {
	req := request(newID(), "sleep")
	req.OCI.Linux.Resources = &grpc.LinuxResources{
		Memory: &grpc.LinuxMemory{Limit: 64 * megabyte},
		CPU:    &grpc.LinuxCPU{Shares: 512, Quota: 50000, Period: 100000},
		Pids:   &grpc.LinuxPids{Limit: 100},
	}
	id := start(t, req)
	values := func(want map[string]string) {
		t.Helper()
		for name, value := range want {
			if got := output(t, id, "cat", "/cgroup/"+name); got != value {
				t.Errorf("%s is %s, want %s", name, got, value)
			}
		}
	}
	values(map[string]string{
		"memory.max": strconv.Itoa(64 * megabyte), "cpu.max": "50000 100000", "cpu.weight": "20", "pids.max": "max"})

	update := func(r *grpc.LinuxResources) {
		t.Helper()
		if _, err := agent.UpdateContainer(t.Context(), &grpc.UpdateContainerRequest{ContainerId: id, Resources: r}); err != nil {
			t.Fatal(err)
		}
	}
	update(&grpc.LinuxResources{
		Memory: &grpc.LinuxMemory{Limit: 80 * megabyte}, CPU: &grpc.LinuxCPU{}, Pids: &grpc.LinuxPids{Limit: 7}})
	values(map[string]string{
		"memory.max": strconv.Itoa(80 * megabyte), "cpu.max": "50000 100000", "cpu.weight": "20", "pids.max": "max"})
	update(&grpc.LinuxResources{CPU: &grpc.LinuxCPU{Period: 50000}})
	values(map[string]string{"memory.max": strconv.Itoa(80 * megabyte), "cpu.max": "50000 50000"})
}

// A pids limit that somebody has set from inside outlives an Update that sends one, and is lifted by one that sends none.
func TestPidsReset(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	output(t, id, "limit", "/cgroup/pids.max", "99")
	for _, step := range []struct {
		pids *grpc.LinuxPids
		want string
	}{{&grpc.LinuxPids{Limit: 50}, "99"}, {nil, "max"}} {
		req := &grpc.UpdateContainerRequest{ContainerId: id, Resources: &grpc.LinuxResources{CPU: &grpc.LinuxCPU{}, Pids: step.pids}}
		if _, err := agent.UpdateContainer(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if got := output(t, id, "cat", "/cgroup/pids.max"); got != step.want {
			t.Errorf("after an update with %v pids.max is %s, want %s", step.pids, got, step.want)
		}
	}
}

// The container's processes see its cgroup as the root, and cannot change its limits even through a writable mount: nsdelegate.
func TestCgroupNamespace(t *testing.T) {
	id := start(t, request(newID(), "cat"))
	for _, file := range []string{"/proc/self/cgroup", "/proc/1/cgroup"} {
		if got := output(t, id, "cat", file); got != "0::/" {
			t.Errorf("%s is %q, want 0::/", file, got)
		}
	}
	eid := spawn(t, id, process("write", "/cgroup/pids.max", "100"))
	complaint := readAll(t, agent.ReadStderr, id, eid)
	if code := wait(t, id, eid); code == 0 || !strings.Contains(complaint, unix.EPERM.Error()) {
		t.Errorf("writing pids.max: exit code %d, %q; want that it is not permitted", code, complaint)
	}
}

func TestStats(t *testing.T) {
	req := request(newID(), "sleep")
	req.OCI.Linux.Resources.Memory = &grpc.LinuxMemory{Limit: 64 * megabyte}
	id := start(t, req)
	answer, err := agent.StatsContainer(t.Context(), &grpc.StatsContainerRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	s := answer.CgroupStats
	switch {
	case s.GetCpuStats().GetThrottlingData() == nil, s.MemoryStats.GetSwapUsage() == nil, s.MemoryStats.GetKernelUsage() == nil,
		s.BlkioStats == nil:
		t.Errorf("a part is missing: %v", s)
	case s.CpuStats.GetCpuUsage().GetTotalUsage() == 0, s.MemoryStats.GetUsage().GetUsage() == 0,
		s.PidsStats.GetCurrent() == 0:
		t.Errorf("a container that runs uses nothing: %v", s)
	case s.MemoryStats.Usage.Limit != 64*megabyte, s.PidsStats.Limit != 0:
		t.Errorf("limits: memory %d, pids %d", s.MemoryStats.Usage.Limit, s.PidsStats.Limit)
	}
}

func TestPause(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	if _, err := agent.ResumeContainer(t.Context(), &grpc.ResumeContainerRequest{ContainerId: id}); err == nil {
		t.Error("a container that is not paused was resumed")
	}
	if _, err := agent.PauseContainer(t.Context(), &grpc.PauseContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.PauseContainer(t.Context(), &grpc.PauseContainerRequest{ContainerId: id}); err == nil {
		t.Error("a paused container was paused")
	}
	if _, err := agent.ResumeContainer(t.Context(), &grpc.ResumeContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if said := output(t, id, "cat", "/cgroup/cgroup.freeze"); said != "0" {
		t.Errorf("cgroup.freeze is %s after Resume", said)
	}
}

func TestOutOfMemory(t *testing.T) {
	req := request(newID(), "eat")
	req.OCI.Linux.Resources.Memory = &grpc.LinuxMemory{Limit: 32 * megabyte}
	id := create(t, req)
	event := make(chan string, 1)
	go func() {
		answer, err := agent.GetOOMEvent(t.Context(), &grpc.GetOOMEventRequest{})
		if err != nil {
			t.Error(err)
		}
		event <- answer.GetContainerId()
	}()
	if _, err := agent.StartContainer(t.Context(), &grpc.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, id, id); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	if got := <-event; got != id {
		t.Errorf("the event is of %q, want %q", got, id)
	}
}
