// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"strconv"
	"strings"
)

// unified clamps what the pod asks by file name (OCI linux.resources.unified, cgroup v2 only). Delegates write
// these last, line by line, so each may hold one line, and only in a spelling that we read as the kernel does.
func (c *clamper) unified() error {
	if c.v == V1 {
		return nil // delegates refuse the map on v1
	}
	for _, key := range sortedKeys(c.r.Unified) {
		value := c.r.Unified[key]
		applied, err := c.unifiedValue(key, value)
		if err != nil {
			return fmt.Errorf("the pod's unified %s=%q: %w", key, value, err)
		}
		if applied != value {
			c.r.Unified[key] = applied
		}
	}
	return nil
}

func (c *clamper) unifiedValue(key, value string) (string, error) {
	switch key {
	case "memory.max":
		return c.unifiedMax(Memory, key, value, c.l.Memory, FormatBytes)
	case "memory.high":
		return c.unifiedMax(MemoryHigh, key, value, c.l.MemoryHigh, FormatBytes)
	case "memory.swap.max":
		return c.unifiedMax(Swap, key, value, c.l.Swap, FormatBytes)
	case "pids.max":
		return c.unifiedMax(Pids, key, value, c.l.Pids, plain)
	case "cpu.weight":
		if c.l.CPUWeight == nil {
			break
		}
		ceiling := int64(*c.l.CPUWeight)
		return c.unifiedMax(CPUWeight, key, value, &ceiling, plain)
	case "cpu.weight.nice":
		return c.nice(key, value)
	case "cpu.max":
		return c.cpuMax(key, value)
	case "cpu.max.burst":
		return c.cpuBurst(key, value)
	case "cpuset.cpus", "cpuset.cpus.exclusive":
		if c.l.CPUSet == "" || value == "" {
			break
		}
		if strings.Contains(value, "\n") {
			return "", fmt.Errorf("has more than one line")
		}
		set, err := clampSet(strings.TrimSpace(value), c.l.CPUSet)
		if err != nil {
			return "", err
		}
		if set != strings.TrimSpace(value) {
			c.changed(CPUSet, "unified "+key, value, c.l.CPUSet, set)
			return set, nil
		}
	case "io.max":
		if len(c.l.IO) > 0 {
			return c.ioMax(value)
		}
	default:
		size, isMax := strings.CutSuffix(key, ".max")
		size, isHuge := strings.CutPrefix(size, "hugetlb.")
		size = strings.TrimSuffix(size, ".rsvd")
		if n, ok := c.l.Hugepages[size]; ok && isMax && isHuge {
			return c.unifiedMax(Hugepages+" "+size, key, value, &n, FormatBytes)
		}
	}
	return value, nil
}

func (c *clamper) unifiedMax(resource, key, value string, ceiling *int64, format func(int64) string) (string, error) {
	if ceiling == nil {
		return value, nil
	}
	n, err := parseKernel(value)
	if err != nil {
		return "", err
	}
	if n <= *ceiling {
		return value, nil
	}
	c.changed(resource, "unified "+key, requested(n, true, format), format(*ceiling), format(*ceiling))
	return plain(*ceiling), nil
}

// cpuMax clamps "QUOTA [PERIOD]". The period is always written: the kernel would keep the one in force.
func (c *clamper) cpuMax(key, value string) (string, error) {
	if c.l.CPU == nil {
		return value, nil
	}
	fields := strings.Fields(value)
	if len(fields) < 1 || len(fields) > 2 || strings.Contains(value, "\n") {
		return "", fmt.Errorf("is not QUOTA PERIOD")
	}
	quota, err := parseKernel(fields[0])
	if err != nil {
		return "", fmt.Errorf("the quota %w", err)
	}
	period := int64(defaultPeriod)
	switch {
	case len(fields) == 2:
		if period, err = parseKernel(fields[1]); err != nil {
			return "", fmt.Errorf("the period %w", err)
		}
		if err := checkPeriod(uint64(period)); err != nil {
			return "", err
		}
	case c.r.CPU != nil && c.r.CPU.Period != nil && checkPeriod(*c.r.CPU.Period) == nil:
		period = int64(*c.r.CPU.Period)
	}
	applied, usePeriod := quota, period
	if quota > *c.l.CPU*period/1000 {
		applied, usePeriod = quotaAt(*c.l.CPU, period)
		c.changed(CPU, "unified "+key, requestedQuota(quota, period), FormatCPU(*c.l.CPU), requestedQuota(applied, usePeriod))
	}
	if c.r.CPU != nil {
		c.burst(c.r.CPU, *c.l.CPU*usePeriod/1000-applied) // it adds to this quota, which is written last
	}
	return plain(applied) + " " + plain(usePeriod), nil
}

// cpuBurst lifts no period above the ceiling. Which quota the burst adds to depends on what else is written, so
// the room that every possible quota leaves is taken: none, unless the pod's own cpu.max says otherwise.
func (c *clamper) cpuBurst(key, value string) (string, error) {
	if c.l.CPU == nil {
		return value, nil
	}
	n, err := parseKernel(value)
	if err != nil {
		return "", err
	}
	room := int64(0)
	if f := strings.Fields(c.r.Unified["cpu.max"]); len(f) == 2 { // clamped already: keys are in order
		quota, errQ := strconv.ParseInt(f[0], 10, 64)
		period, errP := strconv.ParseInt(f[1], 10, 64)
		if errQ == nil && errP == nil && period <= maxPeriod {
			room = max(0, *c.l.CPU*period/1000-quota)
		}
	}
	if n <= room {
		return value, nil
	}
	c.changed(CPU, "unified "+key, requested(n, true, plain), FormatCPU(*c.l.CPU), plain(room))
	return plain(room), nil
}

// nice clamps cpu.weight.nice, the other spelling of cpu.weight (nice 0 is weight 100, 19 is weight 1).
func (c *clamper) nice(key, value string) (string, error) {
	if c.l.CPUWeight == nil {
		return value, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || n < -20 || n > 19 {
		return "", fmt.Errorf("is not a nice value from -20 to 19")
	}
	least := 0
	if *c.l.CPUWeight < defaultWeight {
		least = 19
	}
	if n >= least {
		return value, nil
	}
	c.changed(CPUWeight, "unified "+key, strconv.Itoa(n), strconv.FormatUint(*c.l.CPUWeight, 10), strconv.Itoa(least))
	return strconv.Itoa(least), nil
}
