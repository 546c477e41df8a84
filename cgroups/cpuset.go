// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// NoCPUs is the CPU set of limits whose sets have no CPU in common. Nothing can run on it: [Limits.Validate],
// [Host.Resolve] and [Clamp] refuse it, so a disjoint inheritance fails closed instead of meaning "any CPU".
const NoCPUs = "none"

// MaxCPUs bounds the numbers in a CPU list; CONFIG_NR_CPUS of Linux goes to 8192.
const MaxCPUs = 8192

// A cpuSet has bit n%64 of word n/64 set for CPU n.
type cpuSet [MaxCPUs / 64]uint64

// parseSet reads the kernel's list format (cpuset(7), "List format"): "0-3,7".
// Strides ("0-31:2/4") are refused: the delegates do not agree on them.
func parseSet(s string) (cpuSet, error) {
	var set cpuSet
	if s == NoCPUs {
		return set, errors.New("the CPU sets of the profile, its parents and the node's floor have no CPU in common")
	}
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, errA := parseCPUNumber(lo)
		b, errB := parseCPUNumber(hi)
		if errA != nil || errB != nil || a > b {
			return set, fmt.Errorf("%q in %q is no CPU or range: write a list such as 0-3,7", part, s)
		}
		for n := a; n <= b; n++ {
			set[n/64] |= 1 << (n % 64)
		}
	}
	return set, nil
}

func parseCPUNumber(s string) (int, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("not a number")
	}
	n, err := strconv.Atoi(s)
	if err != nil || n >= MaxCPUs {
		return 0, fmt.Errorf("CPU numbers end at %d", MaxCPUs-1)
	}
	return n, nil
}

func (s cpuSet) and(o cpuSet) cpuSet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

func (s cpuSet) empty() bool { return s == cpuSet{} }

// within reports whether every CPU of s is in o.
func (s cpuSet) within(o cpuSet) bool { return s.and(o) == s }

func (s cpuSet) String() string {
	var b strings.Builder
	for n := s.next(0); n < MaxCPUs; {
		end := n
		for end+1 < MaxCPUs && s[(end+1)/64]&(1<<((end+1)%64)) != 0 {
			end++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(n))
		if end > n {
			b.WriteString("-" + strconv.Itoa(end))
		}
		n = s.next(end + 1)
	}
	return b.String()
}

// next returns the first CPU of s from n on, or MaxCPUs.
func (s cpuSet) next(n int) int {
	for n < MaxCPUs {
		if w := s[n/64] >> (n % 64); w != 0 {
			return n + bits.TrailingZeros64(w)
		}
		n = (n/64 + 1) * 64
	}
	return MaxCPUs
}

// intersect returns the CPUs that are in both lists; an empty intersection is an error.
func intersect(a, b string) (string, error) {
	x, err := parseSet(a)
	if err != nil {
		return "", err
	}
	y, err := parseSet(b)
	if err != nil {
		return "", err
	}
	if both := x.and(y); !both.empty() {
		return both.String(), nil
	}
	return "", fmt.Errorf("CPU sets %s and %s have no CPU in common", a, b)
}

func tightenSets(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	set, err := intersect(a, b)
	if err != nil {
		return NoCPUs
	}
	return set
}
