// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups/inside"
)

// Settings says what to write to the files of a container's cgroup (v2), so that those of the named limits that r sets are in
// force as r has them: for delegates that lose them on the way into a guest. r must come from [Clamp], or from
// [ClampUpdate]; what it does not set stays as it is. tasks is added to a pids limit, for the supervisor's own tasks in
// that cgroup.
func Settings(r *specs.LinuxResources, names []string, tasks int64) []inside.Setting {
	s := settings{r: r}
	for _, name := range names {
		switch name {
		case CPU:
			s.cpu()
		case CPUWeight:
			if r.CPU != nil && r.CPU.Shares != nil && *r.CPU.Shares != 0 {
				s.set("cpu.weight", strconv.FormatUint(weightOfShares(*r.CPU.Shares), 10))
			}
		case CPUSet:
			if r.CPU != nil && r.CPU.Cpus != "" {
				s.set("cpuset.cpus", r.CPU.Cpus)
			}
		case Memory:
			if r.Memory != nil {
				s.amount("memory.max", r.Memory.Limit)
			}
		case MemoryHigh: // by file name only
		case Swap:
			s.swap()
		case Pids:
			s.pids(tasks)
		case Hugepages:
			for _, h := range r.HugepageLimits {
				s.set("hugetlb."+h.Pagesize+".max", strconv.FormatUint(h.Limit, 10))
			}
		case IO:
			s.io()
		}
		s.unified(name, tasks)
	}
	return s.out
}

type settings struct {
	r   *specs.LinuxResources
	out []inside.Setting
}

func (s *settings) set(file, value string) {
	s.out = append(s.out, inside.Setting{File: file, Value: value})
}

// amount writes an OCI limit: zero is "leave it", negative is "no limit".
func (s *settings) amount(file string, p *int64) {
	if n, asked := amount(p); asked && n == noLimit {
		s.set(file, "max")
	} else if asked {
		s.set(file, plain(n))
	}
}

func (s *settings) cpu() {
	c := s.r.CPU
	if c == nil || (c.Quota == nil || *c.Quota == 0) && (c.Period == nil || *c.Period == 0) {
		return
	}
	quota, period := "max", uint64(defaultPeriod)
	if c.Quota != nil && *c.Quota > 0 {
		quota = plain(*c.Quota)
	}
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
	}
	s.set("cpu.max", quota+" "+strconv.FormatUint(period, 10))
}

// swap takes apart what the OCI form has as one number. Without a memory limit there is nothing to take it apart by.
func (s *settings) swap() {
	m := s.r.Memory
	if m == nil || m.Swap == nil || *m.Swap == 0 {
		return
	}
	if *m.Swap < 0 {
		s.set("memory.swap.max", "max")
	} else if m.Limit != nil && *m.Limit > 0 {
		s.set("memory.swap.max", plain(max(0, *m.Swap-*m.Limit)))
	}
}

func (s *settings) pids(tasks int64) {
	if s.r.Pids == nil || s.r.Pids.Limit == nil {
		return
	}
	if n := *s.r.Pids.Limit; n < 0 {
		s.set("pids.max", "max")
	} else {
		s.set("pids.max", plain(max(n, 1)+tasks))
	}
}

func (s *settings) io() {
	b := s.r.BlockIO
	if b == nil {
		return
	}
	for _, k := range ioKeys {
		for _, d := range *k.oci(b) {
			rate := "max" // zero lifts the throttle
			if d.Rate != 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			s.set("io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, k.v2, rate))
		}
	}
}

// unified adds what is asked by file name, which wins because it comes last, as with delegates.
func (s *settings) unified(name string, tasks int64) {
	for _, file := range sortedKeys(s.r.Unified) {
		if limitOf(file) != name {
			continue
		}
		value := s.r.Unified[file]
		if n, err := parseKernel(value); name == Pids && err == nil && n != noLimit {
			value = plain(n + tasks)
		}
		if name != IO {
			s.set(file, value)
			continue
		}
		for line := range strings.Lines(value) { // a setting a rate, as the kernel shows them
			for i, field := range strings.Fields(line) {
				if i > 0 {
					s.set(file, strings.Fields(line)[0]+" "+field)
				}
			}
		}
	}
}

// limitOf names the limit that a file sets the value of; "" for files that it is not read back from.
func limitOf(file string) string {
	switch file {
	case "cpu.max":
		return CPU
	case "cpu.weight":
		return CPUWeight
	case "cpuset.cpus":
		return CPUSet
	case "memory.max":
		return Memory
	case "memory.high":
		return MemoryHigh
	case "memory.swap.max":
		return Swap
	case "pids.max":
		return Pids
	case "io.max":
		return IO
	}
	if size, ok := strings.CutPrefix(file, "hugetlb."); ok && strings.HasSuffix(size, ".max") {
		return Hugepages
	}
	return ""
}
