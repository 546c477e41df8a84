// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// memory clamps memory.limit and memory.swap together: the OCI swap field is memory and swap in one number
// (the form of cgroup v1), so lowering memory alone would give the pod the difference as swap.
func (c *clamper) memory() error {
	if c.l.Memory == nil && c.l.Swap == nil {
		return nil
	}
	var now, have specs.LinuxMemory
	if c.r.Memory != nil {
		have = *c.r.Memory
	}
	if c.current.Memory != nil {
		now = *c.current.Memory
	}
	limit, limitAsked := amount(have.Limit)
	total, totalAsked := amount(have.Swap)
	if c.update && !limitAsked && !totalAsked {
		return nil
	}
	write := limitAsked || !c.update // whether the delegate gets a memory limit from us
	if !limitAsked && c.update {
		if limit, _ = amount(now.Limit); limit == noLimit && c.l.Swap != nil && total != noLimit {
			return fmt.Errorf("limit %s: an update of memory and swap without the memory limit cannot be bounded: send both", Swap)
		}
	}
	swap, err := swapOf(limit, total, have)
	if err != nil {
		return err
	}
	if c.update && !totalAsked && limitAsked {
		swap = keptSwap(now, limit, c.l.Swap != nil)
	}

	newLimit, newSwap := limit, swap
	if c.l.Memory != nil {
		newLimit = min(limit, *c.l.Memory)
		if c.v == V1 && !c.update {
			newLimit = min(newLimit, total) // "memory+swap 1G, memory unlimited" bounds memory as well
		}
	}
	if c.l.Swap != nil {
		newSwap = min(swap, *c.l.Swap)
	}
	out := have
	if write && newLimit != noLimit && (newLimit != limit || !limitAsked) {
		c.changed(Memory, "memory.limit", requested(limit, limitAsked, FormatBytes), FormatBytes(*c.l.Memory), FormatBytes(newLimit))
		out.Limit = &newLimit
	}
	if newSwap != noLimit {
		if err := c.swap(&out, newLimit, newSwap, swap, total, totalAsked); err != nil {
			return err
		}
	}
	if out != have {
		c.r.Memory = &out
	}
	return nil
}

// swap writes the bound on swap: as memory and swap together, or in its own right where memory is unlimited.
func (c *clamper) swap(out *specs.LinuxMemory, limit, swap, was, total int64, asked bool) error {
	if limit == noLimit {
		if c.l.Swap == nil {
			return nil
		}
		if c.v == V1 {
			return c.unenforceable(Swap, "cgroup v1 bounds memory and swap together, and this container has no memory limit: set one in the profile")
		}
		// Where the pod has one of its own, unified() clamps it.
		if _, ok := c.r.Unified["memory.swap.max"]; !ok {
			c.setUnified("memory.swap.max", plain(swap))
			if swap < was {
				c.changed(Swap, "unified memory.swap.max", requested(was, asked, FormatBytes), FormatBytes(*c.l.Swap), FormatBytes(swap))
			}
		}
		return nil
	}
	if swap >= noLimit-limit {
		return fmt.Errorf("limit %s: memory (%d) and swap (%d) together are too large", Swap, limit, swap)
	}
	sum := limit + swap
	if c.v == V1 && total != noLimit {
		sum = max(min(sum, total), limit)
	}
	out.Swap = &sum
	if swap < was { // else it only follows the memory limit
		c.changed(Swap, "memory.swap", requested(was, asked, FormatBytes), FormatBytes(*c.l.Swap), FormatBytes(swap))
	}
	return nil
}

// swapOf splits the OCI total into the part that is swap (runc: ConvertMemorySwapToCgroupV2Value).
func swapOf(limit, total int64, have specs.LinuxMemory) (int64, error) {
	bothGiven := have.Limit != nil && *have.Limit > 0 && have.Swap != nil && *have.Swap > 0
	switch {
	case bothGiven && *have.Limit == *have.Swap:
		return 0, nil // also where each is the largest number, which by itself is no limit
	case total == noLimit:
		return noLimit, nil
	case limit == noLimit && !bothGiven:
		return total, nil // v2 takes it as swap, v1 as the sum, which is no less strict
	case total < limit:
		return 0, fmt.Errorf("limit %s: the pod's memory and swap together (%d) are below its memory (%d)", Swap, total, limit)
	}
	return total - limit, nil
}

// keptSwap is the swap that an update of memory alone leaves: delegates keep the old sum, which would turn
// lowered memory into swap.
func keptSwap(now specs.LinuxMemory, limit int64, bounded bool) int64 {
	nowLimit, _ := amount(now.Limit)
	nowTotal, _ := amount(now.Swap)
	switch {
	case nowTotal == noLimit || nowLimit == noLimit || nowTotal < nowLimit:
		return noLimit
	case bounded:
		return nowTotal - nowLimit
	case limit != noLimit && nowTotal >= limit:
		return nowTotal - limit
	}
	return noLimit
}

func (c *clamper) memoryHigh() error {
	if c.l.MemoryHigh == nil {
		return nil
	}
	if c.v == V1 {
		return c.unenforceable(MemoryHigh, "cgroup v1 has no memory.high")
	}
	if _, ok := c.r.Unified["memory.high"]; ok || c.update {
		return nil // unified() clamps it
	}
	c.setUnified("memory.high", plain(*c.l.MemoryHigh))
	c.changed(MemoryHigh, "unified memory.high", "", FormatBytes(*c.l.MemoryHigh), FormatBytes(*c.l.MemoryHigh))
	return nil
}
