// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of the CFS bandwidth controller, in microseconds (kernel/sched/core.c: min_cfs_quota_period,
// max_cfs_quota_period; the default period is that of cpu.max and cpu.cfs_period_us).
const (
	minQuota      = 1_000
	minPeriod     = 1_000
	maxPeriod     = 1_000_000
	defaultPeriod = 100_000
)

// quotaAt returns the most microseconds in period that stay within milli thousandths of a CPU, and the period
// to use with it: longer where the kernel's least quota would be above the ceiling.
func quotaAt(milli, period int64) (quota, usePeriod int64) {
	if quota = milli * period / 1000; quota >= minQuota {
		return quota, period
	}
	period = (1000*minQuota + milli - 1) / milli
	return milli * period / 1000, period
}

func checkPeriod(period uint64) error {
	if period < minPeriod || period > maxPeriod {
		return fmt.Errorf("limit %s: period of %d µs: the kernel takes %d to %d", CPU, period, minPeriod, maxPeriod)
	}
	return nil
}

func requestedQuota(quota, period int64) string {
	if quota == noLimit {
		return "unlimited"
	}
	return strconv.FormatInt(quota, 10) + "/" + strconv.FormatInt(period, 10) + "µs"
}

func (c *clamper) cpu() error {
	if c.l.CPU == nil {
		return nil
	}
	cpu := c.r.CPU
	if cpu == nil {
		if c.update {
			return nil
		}
		cpu = &specs.LinuxCPU{}
	}
	if err := c.quota(cpu); err != nil {
		return err
	}
	c.r.CPU = cpu
	// Real-time tasks are outside the quota; no share of them is known to be within the ceiling.
	if cpu.RealtimeRuntime != nil && *cpu.RealtimeRuntime != 0 {
		c.changed(CPU, "cpu.realtimeRuntime", plain(*cpu.RealtimeRuntime), FormatCPU(*c.l.CPU), "")
		cpu.RealtimeRuntime = nil
	}
	return nil
}

func (c *clamper) quota(cpu *specs.LinuxCPU) error {
	quota, asked := amount(cpu.Quota)
	period, periodAsked := int64(defaultPeriod), false
	if cpu.Period != nil && *cpu.Period != 0 {
		if err := checkPeriod(*cpu.Period); err != nil {
			return err
		}
		period, periodAsked = int64(*cpu.Period), true
	}
	if c.update {
		// The half that the update does not give is the one in force.
		if now := c.current.CPU; now != nil {
			if !asked && now.Quota != nil && *now.Quota > 0 {
				quota = *now.Quota
			}
			if !periodAsked && now.Period != nil && *now.Period >= minPeriod && *now.Period <= maxPeriod {
				period = int64(*now.Period)
			}
		}
	}
	applied, usePeriod := quota, period
	if quota > *c.l.CPU*period/1000 {
		applied, usePeriod = quotaAt(*c.l.CPU, period)
	}
	if asked || periodAsked || !c.update {
		if applied != quota || usePeriod != period {
			req := ""
			if asked {
				req = requestedQuota(quota, period)
			}
			c.changed(CPU, "cpu.quota", req, FormatCPU(*c.l.CPU), requestedQuota(applied, usePeriod))
		}
		p := uint64(usePeriod)
		cpu.Quota, cpu.Period = &applied, &p
	}
	c.burst(cpu, *c.l.CPU*usePeriod/1000-applied)
	return nil
}

// burst bounds what a period may use beyond its quota, from what earlier ones left over, to the room below the
// ceiling: otherwise single periods would go above it.
func (c *clamper) burst(cpu *specs.LinuxCPU, room int64) {
	if cpu.Burst == nil || *cpu.Burst <= uint64(room) {
		return
	}
	c.changed(CPU, "cpu.burst", strconv.FormatUint(*cpu.Burst, 10)+"µs", FormatCPU(*c.l.CPU), plain(room)+"µs")
	b := uint64(room)
	cpu.Burst = &b
}

func (c *clamper) cpuWeight() error {
	if c.l.CPUWeight == nil {
		return nil
	}
	var have *uint64
	if c.r.CPU != nil {
		have = c.r.CPU.Shares
	}
	asked := have != nil && *have != 0
	if !asked && (c.update || *c.l.CPUWeight >= defaultWeight) {
		return nil // the kernel keeps its value, which is the default or was clamped
	}
	ceiling, shares, req := sharesOfWeight(*c.l.CPUWeight), uint64(defaultShares), ""
	if asked {
		shares, req = *have, strconv.FormatUint(*have, 10)
	}
	if shares <= ceiling {
		return nil
	}
	if c.r.CPU == nil {
		c.r.CPU = &specs.LinuxCPU{}
	}
	c.r.CPU.Shares = &ceiling
	c.changed(CPUWeight, "cpu.shares", req, strconv.FormatUint(*c.l.CPUWeight, 10), strconv.FormatUint(ceiling, 10))
	return nil
}

func (c *clamper) cpuset() error {
	if c.l.CPUSet == "" {
		return nil
	}
	have := ""
	if c.r.CPU != nil {
		have = c.r.CPU.Cpus
	}
	if have == "" && c.update {
		return nil
	}
	set, err := clampSet(have, c.l.CPUSet)
	if err != nil {
		return err
	}
	if set == have {
		return nil
	}
	if c.r.CPU == nil {
		c.r.CPU = &specs.LinuxCPU{}
	}
	c.r.CPU.Cpus = set
	c.changed(CPUSet, "cpu.cpus", have, c.l.CPUSet, set)
	return nil
}

// clampSet returns have unchanged where it is within the ceiling, else the CPUs in both.
func clampSet(have, ceiling string) (string, error) {
	if have == "" {
		return ceiling, nil
	}
	asked, err := parseSet(have)
	if err != nil {
		return "", fmt.Errorf("limit %s: the pod's CPUs: %w", CPUSet, err)
	}
	allowed, err := parseSet(ceiling)
	if err != nil {
		return "", fmt.Errorf("limit %s: %w", CPUSet, err)
	}
	if asked.within(allowed) {
		return have, nil
	}
	both := asked.and(allowed)
	if both.empty() {
		return "", fmt.Errorf("limit %s: the pod asks for CPUs %s, the profile allows %s: no CPU is in both", CPUSet, have, ceiling)
	}
	return both.String(), nil
}
