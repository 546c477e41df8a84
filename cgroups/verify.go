// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// A Check is one limit, asked and found: a line of the receipt.
type Check struct {
	Resource   string
	Key        string // page size, or major:minor and rate; else empty
	Asked      string // the ceiling, as in [Found]
	Found      string // empty where the kernel shows nothing
	OK         bool   // what is in force is at most what was asked
	BestEffort bool   // the container may start without
	Reason     string // why Found is empty
}

// Compare sets each ceiling of l beside what was found, in the order of [Resources]; l must come from
// [Host.Resolve]. Only the process's own cgroup counts: a level above it belongs to others, who may change it. Lower is always
// fine: the pod may have asked for less, and the kernel rounds memory down to whole pages.
func Compare(l Limits, found []Found) []Check {
	var out []Check
	one := func(resource, key, foundKey, asked string, pick func(string) string, within func(string) bool) {
		c := Check{Resource: resource, Key: key, Asked: asked, BestEffort: l.BestEffort[resource], Reason: "it was not read"}
		for _, f := range found {
			if f.Resource == resource && f.Key == foundKey {
				c.Found, c.Reason = pick(f.Value), f.Reason
				c.OK = f.Reason == "" && within(c.Found)
			}
		}
		out = append(out, c)
	}
	same := func(s string) string { return s }
	atMost := func(ceiling int64) func(string) bool {
		return func(s string) bool {
			n, err := parseKernel(s)
			return err == nil && n <= ceiling
		}
	}
	amount := func(resource string, n *int64) {
		if n != nil {
			one(resource, "", "", plain(*n), same, atMost(*n))
		}
	}
	if l.CPU != nil {
		quota, period := quotaAt(*l.CPU, defaultPeriod)
		one(CPU, "", "", plain(quota)+" "+plain(period), same, func(s string) bool {
			q, p, err := parseQuota(s)
			return err == nil && q != noLimit && productAtMost(q, 1000, *l.CPU, p)
		})
	}
	if l.CPUWeight != nil {
		one(CPUWeight, "", "", strconv.FormatUint(*l.CPUWeight, 10), same, atMost(int64(*l.CPUWeight)))
	}
	if l.CPUSet != "" {
		one(CPUSet, "", "", l.CPUSet, same, func(s string) bool {
			have, errA := parseSet(s)
			asked, errB := parseSet(l.CPUSet)
			return errA == nil && errB == nil && have.within(asked)
		})
	}
	amount(Memory, l.Memory)
	amount(MemoryHigh, l.MemoryHigh)
	amount(Swap, l.Swap)
	amount(Pids, l.Pids)
	for _, size := range sortedKeys(l.Hugepages) {
		n := l.Hugepages[size]
		one(Hugepages, size, size, plain(n), same, atMost(n))
	}
	for i := range l.IO {
		for _, k := range ioKeys {
			if n := k.limit(&l.IO[i]); n != nil {
				one(IO, l.IO[i].Device+" "+k.v2, l.IO[i].Device, plain(*n), rate(k.v2), atMost(*n))
			}
		}
	}
	return out
}

// Absent returns the ceilings of asked that [Host.Resolve] or [ResolveForGuest] left out of resolved, as they may where they
// are best effort: what a receipt must not keep quiet about.
func Absent(asked, resolved Limits) []Check {
	kept := Compare(resolved, nil)
	return slices.DeleteFunc(Compare(asked, nil), func(c Check) bool {
		return slices.ContainsFunc(kept, func(k Check) bool {
			return k.Resource == c.Resource && (k.Key == c.Key || c.Resource == IO) // devices have other names once resolved
		})
	})
}

// rate picks one key of "rbps=N wbps=N …".
func rate(key string) func(string) string {
	return func(s string) string {
		for field := range strings.FieldsSeq(s) {
			if k, v, ok := strings.Cut(field, "="); ok && k == key {
				return v
			}
		}
		return ""
	}
}

// productAtMost reports a*b <= c*d without overflow, for numbers that are not negative.
func productAtMost(a, b, c, d int64) bool {
	hi1, lo1 := bits.Mul64(uint64(a), uint64(b))
	hi2, lo2 := bits.Mul64(uint64(c), uint64(d))
	return hi1 < hi2 || hi1 == hi2 && lo1 <= lo2
}
