// SPDX-License-Identifier: Apache-2.0

// Package cgroups turns a profile's limits into OCI resources and reads back what the kernel has in force.
//
// A limit is a ceiling: [Clamp] and [ClampUpdate] lower what a pod asks and never raise it. Everything here
// is pure except [Host], which looks at the node's hierarchies (cgroup v1, v2 or both) and at the cgroup of
// one process. The order of use is: [Detect] once, [Host.Resolve] to fit the limits to the node, [Clamp],
// and after the container is created [Host.ReadBack] and [Compare].
//
// Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel, the OCI runtime
// specification (config-linux.md, "Control groups"), and runc's reading of it.
package cgroups

import (
	"maps"
	"slices"
)

// Names of the limits, as profiles, events and receipts write them.
const (
	CPU        = "cpu"
	CPUWeight  = "cpuWeight"
	CPUSet     = "cpuset"
	Memory     = "memory"
	MemoryHigh = "memoryHigh"
	Swap       = "swap"
	Pids       = "pids"
	Hugepages  = "hugepages"
	IO         = "io"
)

// ResourceDoc describes one limit for the vocabulary that the CLI and the documentation print.
type ResourceDoc struct {
	Name, Unit, Doc string
	Least, Most     int64 // what [Limits.Validate] takes, of each entry where there are several; Most 0: anything
}

var resources = []ResourceDoc{
	{CPU, "CPUs, in thousandths", "CPU time: quota over period, burst included", 1, maxCPU},
	{CPUWeight, "1 to 10000", "share of contended CPU time, in the scale of cgroup v2 (100 is the default)", 1, 10000},
	{CPUSet, "CPU list", "the CPUs that the container may run on", 0, 0},
	{Memory, "bytes", "memory; going over it is an OOM kill", 1, 0},
	{MemoryHigh, "bytes", "memory above which allocation is throttled; cgroup v2 only", 1, 0},
	{Swap, "bytes", "swap beside memory; on cgroup v1 the sum of both is what the kernel bounds", 0, 0},
	{Pids, "tasks", "processes and threads", 1, 0},
	{Hugepages, "bytes per page size", "huge pages, by page size (2MB, 1GB)", 0, 0},
	{IO, "bytes or operations a second", "reads and writes of one block device", 1, 0},
}

// Resources returns the vocabulary of limits in the order of the documentation.
func Resources() []ResourceDoc { return slices.Clone(resources) }

func resource(name string) ResourceDoc {
	return resources[slices.IndexFunc(resources, func(r ResourceDoc) bool { return r.Name == name })]
}

// KnownResource reports whether name is the name of a limit.
func KnownResource(name string) bool {
	return slices.ContainsFunc(resources, func(r ResourceDoc) bool { return r.Name == name })
}

// Limits are the ceilings of one profile. A nil, empty or absent field sets no ceiling.
type Limits struct {
	CPU        *int64           // thousandths of a CPU
	CPUWeight  *uint64          // cgroup v2 weight, 1 to 10000
	CPUSet     string           // CPU list such as "0-3,7"; see [NoCPUs]
	Memory     *int64           // bytes
	MemoryHigh *int64           // bytes
	Swap       *int64           // bytes of swap alone; the OCI field is memory and swap together
	Pids       *int64           // tasks
	Hugepages  map[string]int64 // bytes by page size in the kernel's spelling: "2MB"
	IO         []IOLimit        // at most one entry a device
	BestEffort map[string]bool  // limits, by name, without which a container may start
}

// IOLimit bounds the traffic of one block device.
type IOLimit struct {
	// Device is a path on the node ("/dev/vda", a link under /dev/disk) or "major:minor".
	// [Host.Resolve] turns the first into the second; [Clamp] takes only the second.
	Device    string
	ReadBPS   *int64 // bytes a second
	WriteBPS  *int64
	ReadIOPS  *int64 // operations a second
	WriteIOPS *int64
}

// IsZero reports whether l sets no ceiling at all.
func (l Limits) IsZero() bool {
	return l.CPU == nil && l.CPUWeight == nil && l.CPUSet == "" && l.Memory == nil && l.MemoryHigh == nil &&
		l.Swap == nil && l.Pids == nil && len(l.Hugepages) == 0 && len(l.IO) == 0
}

// Has reports whether l sets a ceiling for the named limit.
func (l Limits) Has(name string) bool {
	switch name {
	case CPU:
		return l.CPU != nil
	case CPUWeight:
		return l.CPUWeight != nil
	case CPUSet:
		return l.CPUSet != ""
	case Memory:
		return l.Memory != nil
	case MemoryHigh:
		return l.MemoryHigh != nil
	case Swap:
		return l.Swap != nil
	case Pids:
		return l.Pids != nil
	case Hugepages:
		return len(l.Hugepages) > 0
	case IO:
		return len(l.IO) > 0
	}
	return false
}

// Tighten returns the lower of each ceiling: a profile over its parent, a node's floor over a profile.
// CPU sets intersect; sets without a CPU in common give [NoCPUs], which no container can start with.
// A limit stays best effort only where every side that sets it says so, so neither side can loosen the other.
// Neither operand is changed and nothing is shared with the result.
func (l Limits) Tighten(o Limits) Limits {
	t := Limits{
		CPU:        lower(l.CPU, o.CPU),
		CPUWeight:  lower(l.CPUWeight, o.CPUWeight),
		CPUSet:     tightenSets(l.CPUSet, o.CPUSet),
		Memory:     lower(l.Memory, o.Memory),
		MemoryHigh: lower(l.MemoryHigh, o.MemoryHigh),
		Swap:       lower(l.Swap, o.Swap),
		Pids:       lower(l.Pids, o.Pids),
		Hugepages:  maps.Clone(l.Hugepages),
		IO:         tightenIO(l.IO, o.IO),
	}
	for size, n := range o.Hugepages {
		if t.Hugepages == nil {
			t.Hugepages = map[string]int64{}
		}
		if have, ok := t.Hugepages[size]; !ok || n < have {
			t.Hugepages[size] = n
		}
	}
	for _, r := range resources {
		if t.Has(r.Name) && (!l.Has(r.Name) || l.BestEffort[r.Name]) && (!o.Has(r.Name) || o.BestEffort[r.Name]) {
			if t.BestEffort == nil {
				t.BestEffort = map[string]bool{}
			}
			t.BestEffort[r.Name] = true
		}
	}
	return t
}

// tightenIO merges by the spelling of the device; two spellings of one device meet in [Host.Resolve].
func tightenIO(a, b []IOLimit) []IOLimit {
	var out []IOLimit
	for _, d := range slices.Concat(a, b) {
		i := slices.IndexFunc(out, func(x IOLimit) bool { return x.Device == d.Device })
		if i < 0 {
			out = append(out, IOLimit{Device: d.Device})
			i = len(out) - 1
		}
		out[i] = IOLimit{
			Device:    d.Device,
			ReadBPS:   lower(out[i].ReadBPS, d.ReadBPS),
			WriteBPS:  lower(out[i].WriteBPS, d.WriteBPS),
			ReadIOPS:  lower(out[i].ReadIOPS, d.ReadIOPS),
			WriteIOPS: lower(out[i].WriteIOPS, d.WriteIOPS),
		}
	}
	return out
}

func lower[T int64 | uint64](a, b *T) *T {
	if a == nil && b == nil {
		return nil
	}
	if a == nil || (b != nil && *b < *a) {
		a = b
	}
	n := *a
	return &n
}
