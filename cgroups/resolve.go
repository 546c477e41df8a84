// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Resolve fits limits to this node: IO devices become "major:minor" and two spellings of one device one entry,
// the CPU set keeps the CPUs that are online, and page sizes that this kernel does not have are left out, since
// nobody can use them. Limits that cannot be put in force are left out and listed where the profile calls them
// best effort; others make it fail with *[UnenforceableError]. l is not changed.
func (h *Host) Resolve(l Limits) (Limits, []Unenforceable, error) {
	if err := l.Validate(); err != nil {
		return Limits{}, nil, err
	}
	out := l.Tighten(Limits{})
	var found unenforceable
	no := func(resource, key, reason string) { found.add(l, Unenforceable{resource, key, reason}) }
	lacks := func(name, controller string, files ...string) bool {
		if !l.Has(name) {
			return false
		}
		reason := h.missing(controller, files...)
		if reason != "" {
			no(name, "", reason)
		}
		return reason != ""
	}
	if lacks(CPU, "cpu", "cpu.cfs_quota_us") {
		out.CPU = nil
	}
	if lacks(CPUWeight, "cpu", "cpu.shares") {
		out.CPUWeight = nil
	}
	if lacks(Memory, "memory", "memory.limit_in_bytes") {
		out.Memory = nil
	}
	if lacks(Pids, "pids") {
		out.Pids = nil
	}
	if h.Version == V1 && l.MemoryHigh != nil {
		no(MemoryHigh, "", "cgroup v1 has no memory.high")
		out.MemoryHigh = nil
	} else if lacks(MemoryHigh, "memory") {
		out.MemoryHigh = nil
	}
	if lacks(Swap, "memory", "memory.memsw.limit_in_bytes") {
		out.Swap = nil
	} else if l.Swap != nil && h.Version == V2 && !h.swapAccounting() {
		no(Swap, "", "the kernel does not account swap: there is no memory.swap.max; see swapaccount in the kernel's parameters")
		out.Swap = nil
	}
	if lacks(CPUSet, "cpuset") {
		out.CPUSet = ""
	} else if err := h.onlineOnly(&out); err != nil {
		return Limits{}, nil, err
	}
	h.resolveHugepages(&out, no)
	h.resolveIO(&out, no)
	return found.leave(out)
}

// ResolveForGuest is [Host.Resolve] for a container in a guest, of which nobody knows from here what it has: limits of the
// names in foreign cannot be put in force there, and whether the others are is for the receipt to tell.
func ResolveForGuest(l Limits, foreign []string) (Limits, []Unenforceable, error) {
	if err := l.Validate(); err != nil {
		return Limits{}, nil, err
	}
	out := l.Tighten(Limits{})
	var found unenforceable
	for _, name := range foreign {
		if !l.Has(name) {
			continue
		}
		found.add(l, Unenforceable{Resource: name, Reason: "it speaks of the node's CPUs or devices, which the guest does not have"})
		switch name {
		case CPUSet:
			out.CPUSet = ""
		case IO:
			out.IO = nil
		case Hugepages:
			out.Hugepages = nil
		default:
			return Limits{}, nil, fmt.Errorf("limit %s cannot be foreign to a guest", name)
		}
	}
	return found.leave(out)
}

// unenforceable is what Resolve finds that cannot be put in force.
type unenforceable struct{ refused, skipped []Unenforceable }

func (f *unenforceable) add(l Limits, u Unenforceable) {
	if l.BestEffort[u.Resource] {
		f.skipped = append(f.skipped, u)
	} else {
		f.refused = append(f.refused, u)
	}
}

// leave returns Resolve's results; out is what can be put in force.
func (f *unenforceable) leave(out Limits) (Limits, []Unenforceable, error) {
	if len(f.refused) > 0 {
		return Limits{}, nil, &UnenforceableError{f.refused}
	}
	for _, r := range resources {
		if !out.Has(r.Name) {
			delete(out.BestEffort, r.Name)
		}
	}
	return out, f.skipped, nil
}

// missing says why a controller cannot be used, or nothing. files are those of cgroup v1 that a kernel may be
// built without; v2's own files are absent from the root cgroup and cannot be looked up there.
func (h *Host) missing(controller string, files ...string) string {
	m, ok := h.controller(controller)
	if h.Version == V2 {
		have, err := h.read(filepath.Join(m.point, "cgroup.controllers"))
		if err != nil {
			return fmt.Sprintf("cannot read the controllers of cgroup v2: %v", err)
		}
		if !slices.Contains(strings.Fields(have), controller) {
			return fmt.Sprintf("the %s controller is not in %s/cgroup.controllers", controller, m.point)
		}
		return ""
	}
	if !ok {
		return fmt.Sprintf("the %s controller of cgroup v1 is not mounted", controller)
	}
	for _, f := range files {
		if !h.exists(filepath.Join(m.point, f)) {
			return fmt.Sprintf("%s has no %s: the kernel was built or started without it", m.point, f)
		}
	}
	return ""
}

// swapAccounting looks for memory.swap.max beside a memory.max: in our own cgroup and those above it, then in
// the first level below the root. With no memory cgroup in sight it answers yes; the receipt then decides.
func (h *Host) swapAccounting() bool {
	var dirs []string
	if text, err := h.read("/proc/self/cgroup"); err == nil {
		if own, err := h.cgroupOf(text, "memory"); err == nil {
			if dir, err := h.unified.dir(own); err == nil {
				for ; strings.HasPrefix(dir, h.unified.point); dir = filepath.Dir(dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	entries, _ := os.ReadDir(filepath.Join(h.root+"/", h.unified.point))
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(h.unified.point, e.Name()))
		}
	}
	for _, dir := range dirs {
		if h.exists(filepath.Join(dir, "memory.max")) {
			return h.exists(filepath.Join(dir, "memory.swap.max"))
		}
	}
	return true
}

func (h *Host) onlineOnly(l *Limits) error {
	if l.CPUSet == "" {
		return nil
	}
	online, err := h.read("/sys/devices/system/cpu/online")
	if err != nil {
		return fmt.Errorf("limit %s: find the CPUs that are online: %w", CPUSet, err)
	}
	set, err := intersect(l.CPUSet, online)
	if err != nil {
		return &FieldError{CPUSet, "", fmt.Sprintf("the profile allows CPUs %s, this node has %s online: no CPU is in both", l.CPUSet, strings.TrimSpace(online))}
	}
	l.CPUSet = set
	return nil
}

func (h *Host) resolveHugepages(l *Limits, no func(resource, key, reason string)) {
	for _, size := range sortedKeys(l.Hugepages) {
		if !h.exists("/sys/kernel/mm/hugepages/hugepages-" + kilobytes(size) + "kB") {
			delete(l.Hugepages, size)
			continue
		}
		if reason := h.missing("hugetlb", "hugetlb."+size+".limit_in_bytes"); reason != "" {
			no(Hugepages, size, reason)
			delete(l.Hugepages, size)
		}
	}
}

// kilobytes spells a page size such as 2MB as sysfs does: 2048.
func kilobytes(size string) string {
	n, err := strconv.ParseUint(strings.TrimRight(size, "KMGTB"), 10, 32)
	if err != nil {
		return size
	}
	for _, unit := range []string{"MB", "GB", "TB"} {
		if n *= 1024; strings.HasSuffix(size, unit) {
			return strconv.FormatUint(n, 10)
		}
	}
	return strings.TrimSuffix(size, "KB")
}

func (h *Host) resolveIO(l *Limits, no func(resource, key, reason string)) {
	if len(l.IO) == 0 {
		return
	}
	var files []string
	for _, k := range ioKeys {
		files = append(files, k.v1)
	}
	if reason := h.missing("io", files...); reason != "" {
		no(IO, "", reason)
		l.IO = nil
		return
	}
	var resolved []IOLimit
	for _, d := range l.IO {
		id, err := h.device(d.Device)
		if err != nil {
			no(IO, d.Device, err.Error())
			continue
		}
		d.Device = id
		resolved = append(resolved, d)
	}
	l.IO = tightenIO(resolved, nil)
}

// device resolves a path to the number of a whole block device; partitions have no queue of their own, and the
// kernel refuses them (block/blk-cgroup.c: blkg_conf_open_bdev).
func (h *Host) device(name string) (string, error) {
	if _, _, err := parseDevice(name); err != nil {
		info, err := os.Stat(filepath.Join(h.root+"/", name))
		if err != nil {
			return "", fmt.Errorf("no such device on this node: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
			return "", fmt.Errorf("%s is no block device", name)
		}
		dev := uint64(st.Rdev) //nolint:unconvert // 32 bits wide elsewhere
		// The layout of dev_t in glibc and the kernel's ABI (makedev(3)).
		major := (dev>>8)&0xfff | (dev>>32)&^0xfff
		minor := dev&0xff | (dev>>12)&^0xff
		name = strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
	}
	sys := "/sys/dev/block/" + name
	if !h.exists(sys) {
		return "", fmt.Errorf("there is no block device %s on this node", name)
	}
	if h.exists(sys + "/partition") {
		return "", fmt.Errorf("%s is a partition: name the whole disk", name)
	}
	return name, nil
}
