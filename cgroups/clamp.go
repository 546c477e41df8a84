// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Version of cgroups: the form in which resources are written.
type Version uint8

// V1 has one hierarchy a controller, V2 one for all. A hybrid host (v1 controllers, an empty v2 tree beside
// them) counts as V1, as it does for runc.
const (
	V1 Version = 1
	V2 Version = 2
)

func (v Version) String() string { return "v" + strconv.Itoa(int(v)) }

// A Change is one value that was lowered to a ceiling.
type Change struct {
	Resource  string // name of the limit, with the page size or device after a space where it has several
	Field     string // the OCI field that was written: "memory.swap", "unified io.max"
	Requested string // what the pod asked; empty where it asked nothing, "unlimited" where it asked for no limit
	Ceiling   string
	Applied   string // what is now in the resources, in the unit of Requested
}

// Clamp lowers r in place to the ceilings l, for the creation of a container: what is absent becomes the
// ceiling. Nothing is raised, and what l does not bound stays as it is. r.Unified is clamped too, since
// delegates write it last and it would win.
//
// IO devices must be "major:minor" ([Host.Resolve]). The errors are those of [Limits.Validate],
// *[UnenforceableError], and values of the pod that cannot be compared with a ceiling; after an error r is in
// part clamped and must not be used. A nil r is an error only if there is something to clamp.
func Clamp(r *specs.LinuxResources, l Limits, v Version) ([]Change, error) {
	return clamp(r, nil, l, v, false)
}

// ClampUpdate lowers r in place for the update of a running container: what is absent stays absent, because
// the kernel keeps what it has, which was clamped before. current is what is in force (the container's last
// clamped resources, see [Remember]; nil if unknown) and completes the pairs that only make sense together:
// a quota with its period, memory with memory and swap, and the pids limit, which some delegates lift when an
// update does not repeat it.
func ClampUpdate(r, current *specs.LinuxResources, l Limits, v Version) ([]Change, error) {
	return clamp(r, current, l, v, true)
}

// Remember returns what is in force after the update r, given what was in force before it, so that the next
// [ClampUpdate] can complete its pairs. Only what ClampUpdate reads is kept. Both may be nil.
func Remember(current, r *specs.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, Pids: &specs.LinuxPids{}}
	for _, from := range []*specs.LinuxResources{current, r} {
		if from == nil {
			continue
		}
		if c := from.CPU; c != nil {
			out.CPU.Quota = newest(out.CPU.Quota, c.Quota)
			out.CPU.Period = newest(out.CPU.Period, c.Period)
		}
		if m := from.Memory; m != nil {
			out.Memory.Limit = newest(out.Memory.Limit, m.Limit)
			out.Memory.Swap = newest(out.Memory.Swap, m.Swap)
		}
		if p := from.Pids; p != nil {
			out.Pids.Limit = newest(out.Pids.Limit, p.Limit)
		}
	}
	return out
}

// newest prefers the update's value; delegates read zero as "leave it".
func newest[T int64 | uint64](old, update *T) *T {
	if update == nil || *update == 0 {
		return old
	}
	n := *update
	return &n
}

type clamper struct {
	r, current *specs.LinuxResources
	l          Limits
	v          Version
	update     bool
	changes    []Change
}

func clamp(r, current *specs.LinuxResources, l Limits, v Version, update bool) ([]Change, error) {
	if l.IsZero() {
		return nil, nil
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("no linux.resources to clamp: give an empty object")
	}
	if v != V1 && v != V2 {
		return nil, fmt.Errorf("cgroup version %d: know only v1 and v2", v)
	}
	if current == nil {
		current = &specs.LinuxResources{}
	}
	c := &clamper{r: r, current: current, l: l, v: v, update: update}
	for _, step := range []func() error{
		c.cpu, c.cpuWeight, c.cpuset, c.memory, c.memoryHigh, c.pids, c.hugepages, c.io, c.unified,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c.changes, nil
}

func (c *clamper) changed(resource, field, requested, ceiling, applied string) {
	c.changes = append(c.changes, Change{resource, field, requested, ceiling, applied})
}

// unenforceable is nil where the limit is best effort.
func (c *clamper) unenforceable(resource, reason string) error {
	if c.l.BestEffort[resource] {
		return nil
	}
	return &UnenforceableError{[]Unenforceable{{Resource: resource, Reason: reason}}}
}

func (c *clamper) setUnified(key, value string) {
	if c.r.Unified == nil {
		c.r.Unified = map[string]string{}
	}
	c.r.Unified[key] = value
}

// amount reads an OCI limit: absent and zero are "not asked" to every delegate, negative is "unlimited".
func amount(p *int64) (n int64, asked bool) {
	switch {
	case p == nil || *p == 0:
		return noLimit, false
	case *p < 0:
		return noLimit, true
	}
	return *p, true
}

func requested(n int64, asked bool, format func(int64) string) string {
	switch {
	case !asked:
		return ""
	case n == noLimit:
		return "unlimited"
	}
	return format(n)
}

func plain(n int64) string { return strconv.FormatInt(n, 10) }

func (c *clamper) pids() error {
	if c.l.Pids == nil {
		return nil
	}
	var p *int64
	if c.r.Pids != nil {
		p = c.r.Pids.Limit
	}
	if p == nil && c.update {
		// Kata's agent lifts the limit when an update does not repeat it.
		if c.current.Pids != nil && c.current.Pids.Limit != nil && *c.current.Pids.Limit > 0 {
			n := min(*c.current.Pids.Limit, *c.l.Pids)
			c.r.Pids = &specs.LinuxPids{Limit: &n}
		}
		return nil
	}
	n, asked := amount(p)
	if p != nil && *p == 0 {
		// runc 1.4 and the specification's text since 1.3 read zero as the least (1), older ones as unlimited.
		// The least is right for both.
		n, asked = 0, true
	}
	applied := min(max(n, 1), *c.l.Pids)
	if asked && applied == n {
		return nil
	}
	c.r.Pids = &specs.LinuxPids{Limit: &applied}
	c.changed(Pids, "pids.limit", requested(n, asked, plain), plain(*c.l.Pids), plain(applied))
	return nil
}

func (c *clamper) hugepages() error {
	for _, size := range sortedKeys(c.l.Hugepages) {
		ceiling := c.l.Hugepages[size]
		found := false
		for i := range c.r.HugepageLimits {
			h := &c.r.HugepageLimits[i]
			if h.Pagesize != size {
				continue
			}
			found = true
			if h.Limit > uint64(ceiling) {
				c.changed(Hugepages+" "+size, "hugepageLimits", strconv.FormatUint(h.Limit, 10), FormatBytes(ceiling), FormatBytes(ceiling))
				h.Limit = uint64(ceiling)
			}
		}
		if !found && !c.update {
			c.r.HugepageLimits = append(c.r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(ceiling)})
			c.changed(Hugepages+" "+size, "hugepageLimits", "", FormatBytes(ceiling), FormatBytes(ceiling))
		}
	}
	return nil
}
