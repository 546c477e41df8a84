// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"google.golang.org/protobuf/types/known/anypb"
)

// Usage is what a container uses and may use, by its cgroup, as its delegate reports it. A limit that is nil is none, or not known.
type Usage struct {
	Memory      uint64  `json:"memory"`      // bytes, caches included
	WorkingSet  uint64  `json:"workingSet"`  // bytes of it that cannot simply be given back: what the kubelet evicts by
	MemoryLimit *uint64 `json:"memoryLimit"` // bytes
	Swap        uint64  `json:"swap"`        // bytes
	SwapLimit   *uint64 `json:"swapLimit"`   // bytes, beside the memory
	OOMKills    uint64  `json:"oomKills"`    // processes

	Pids      uint64  `json:"pids"` // tasks
	PidsLimit *uint64 `json:"pidsLimit"`

	CPU              uint64 `json:"cpu"`              // nanoseconds
	Periods          uint64 `json:"periods"`          // that its quota was counted in
	ThrottledPeriods uint64 `json:"throttledPeriods"` // in which it had to wait
	Throttled        uint64 `json:"throttled"`        // nanoseconds that it waited
}

// readUsage takes the two forms that runc's shim and Kata's answer Stats with.
func readUsage(stats *anypb.Any) (*Usage, error) {
	var v1 cgroup1.Metrics
	var v2 cgroup2.Metrics
	switch {
	case stats.MessageIs(&v1):
		if err := stats.UnmarshalTo(&v1); err != nil {
			return nil, fmt.Errorf("metrics of the delegate: %w", err)
		}
		return ofV1(&v1), nil
	case stats.MessageIs(&v2):
		if err := stats.UnmarshalTo(&v2); err != nil {
			return nil, fmt.Errorf("metrics of the delegate: %w", err)
		}
		return ofV2(&v2), nil
	}
	return nil, fmt.Errorf("metrics of the delegate are of the unknown type %q", stats.GetTypeUrl())
}

func ofV1(m *cgroup1.Metrics) *Usage {
	u := &Usage{
		Memory: m.GetMemory().GetUsage().GetUsage(), MemoryLimit: positive(m.GetMemory().GetUsage().GetLimit()),
		OOMKills: m.GetMemoryOomControl().GetOomKill(),
		Pids:     m.GetPids().GetCurrent(), PidsLimit: positive(m.GetPids().GetLimit()),
		CPU: m.GetCPU().GetUsage().GetTotal(), Periods: m.GetCPU().GetThrottling().GetPeriods(),
		ThrottledPeriods: m.GetCPU().GetThrottling().GetThrottledPeriods(), Throttled: m.GetCPU().GetThrottling().GetThrottledTime(),
	}
	u.WorkingSet = less(u.Memory, m.GetMemory().GetTotalInactiveFile())
	both := m.GetMemory().GetSwap() // memory and swap together
	u.Swap = less(both.GetUsage(), u.Memory)
	if u.MemoryLimit != nil && positive(both.GetLimit()) != nil {
		u.SwapLimit = limit(less(both.GetLimit(), *u.MemoryLimit))
	}
	return u
}

func ofV2(m *cgroup2.Metrics) *Usage {
	const microsecond = 1000
	u := &Usage{
		Memory: m.GetMemory().GetUsage(), MemoryLimit: positive(m.GetMemory().GetUsageLimit()),
		WorkingSet: less(m.GetMemory().GetUsage(), m.GetMemory().GetInactiveFile()),
		Swap:       m.GetMemory().GetSwapUsage(),
		OOMKills:   m.GetMemoryEvents().GetOomKill(),
		Pids:       m.GetPids().GetCurrent(), PidsLimit: positive(m.GetPids().GetLimit()),
		CPU: m.GetCPU().GetUsageUsec() * microsecond, Periods: m.GetCPU().GetNrPeriods(),
		ThrottledPeriods: m.GetCPU().GetNrThrottled(), Throttled: m.GetCPU().GetThrottledUsec() * microsecond,
	}
	if m.GetMemory() != nil {
		u.SwapLimit = limit(m.GetMemory().GetSwapLimit())
	}
	return u
}

// limit is nil for what stands for none: "max" (cgroup v2) is the largest number, v1 has the largest multiple of a page.
func limit(n uint64) *uint64 {
	if n > 1<<62 {
		return nil
	}
	return &n
}

// positive is limit where 0 stands for a number that was not read, or for none.
func positive(n uint64) *uint64 {
	if n == 0 {
		return nil
	}
	return limit(n)
}

func less(n, by uint64) uint64 { return n - min(n, by) }
