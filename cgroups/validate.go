// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// FieldError says which limit is wrong, so that the profile's reader can name file and line.
type FieldError struct {
	Resource string // name of the limit
	Key      string // page size or device, where the limit has several entries; else empty
	Reason   string
}

func (e *FieldError) Error() string {
	if e.Key != "" {
		return fmt.Sprintf("limit %s of %s: %s", e.Resource, e.Key, e.Reason)
	}
	return fmt.Sprintf("limit %s: %s", e.Resource, e.Reason)
}

// PageSizePattern is the kernel's spelling of a huge page size (hugetlb.<size>.max), also that of the OCI specification.
const PageSizePattern = `^[1-9][0-9]{0,3}[KMGT]B$`

var pageSize = regexp.MustCompile(PageSizePattern)

// 1e9 thousandths are a million CPUs; with the longest period the product stays far below 1<<63.
const maxCPU = 1_000_000_000

// Validate reports every limit that can never be put in force, as *[FieldError]s in one joined error
// (errors.Join: unwrap with interface{ Unwrap() []error }).
func (l Limits) Validate() error {
	var errs []error
	bad := func(resource, key, format string, args ...any) {
		errs = append(errs, &FieldError{resource, key, fmt.Sprintf(format, args...)})
	}
	atLeast := func(name, key string, n *int64) {
		if least := resource(name).Least; n != nil && *n < least {
			bad(name, key, "%d is below %d, the least that a container can run with", *n, least)
		}
	}
	atLeast(CPU, "", l.CPU)
	if l.CPU != nil && *l.CPU > resource(CPU).Most {
		bad(CPU, "", "%s CPUs are more than any machine has", FormatCPU(*l.CPU))
	}
	if w := resource(CPUWeight); l.CPUWeight != nil && (*l.CPUWeight < uint64(w.Least) || *l.CPUWeight > uint64(w.Most)) {
		bad(CPUWeight, "", "%d is not a cgroup v2 weight: write 1 to 10000", *l.CPUWeight)
	}
	if l.CPUSet != "" {
		if _, err := parseSet(l.CPUSet); err != nil {
			bad(CPUSet, "", "%v", err)
		}
	}
	atLeast(Memory, "", l.Memory)
	atLeast(MemoryHigh, "", l.MemoryHigh)
	atLeast(Swap, "", l.Swap)
	atLeast(Pids, "", l.Pids)
	for _, size := range slices.Sorted(maps.Keys(l.Hugepages)) {
		if !pageSize.MatchString(size) {
			bad(Hugepages, size, "is not a page size: write it as the kernel does, such as 2MB or 1GB")
		}
		n := l.Hugepages[size]
		atLeast(Hugepages, size, &n)
	}
	seen := map[string]bool{}
	for _, d := range l.IO {
		if _, _, err := parseDevice(d.Device); err != nil && !strings.HasPrefix(d.Device, "/dev/") {
			bad(IO, d.Device, "is no device: write a path under /dev or major:minor")
		}
		if seen[d.Device] {
			bad(IO, d.Device, "is named twice")
		}
		seen[d.Device] = true
		if d.ReadBPS == nil && d.WriteBPS == nil && d.ReadIOPS == nil && d.WriteIOPS == nil {
			bad(IO, d.Device, "bounds nothing: give readBPS, writeBPS, readIOPS or writeIOPS")
		}
		for _, n := range []*int64{d.ReadBPS, d.WriteBPS, d.ReadIOPS, d.WriteIOPS} {
			// Zero lifts the throttle on cgroup v1 and is refused by v2.
			atLeast(IO, d.Device, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.BestEffort)) {
		if !KnownResource(name) {
			bad(name, "", "bestEffort names a limit that does not exist")
		}
	}
	return errors.Join(errs...)
}

// Unenforceable is one limit that the node, or its cgroup version, cannot put in force.
type Unenforceable struct {
	Resource string
	Key      string // page size or device; else empty
	Reason   string
}

// UnenforceableError is returned where limits that are not best effort cannot be put in force.
type UnenforceableError struct{ Items []Unenforceable }

func (e *UnenforceableError) Error() string {
	var b strings.Builder
	b.WriteString("this node cannot enforce ")
	for i, u := range e.Items {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString("limit " + u.Resource)
		if u.Key != "" {
			b.WriteString(" of " + u.Key)
		}
		b.WriteString(" (" + u.Reason + ")")
	}
	b.WriteString(": remove the limit, or name it under bestEffort in the profile")
	return b.String()
}
