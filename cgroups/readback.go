// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// Found is one limit as the kernel has it, in the form of cgroup v2 whichever version it was read from: "max"
// for no limit; "QUOTA PERIOD" in microseconds for cpu; bytes; tasks; a weight; a CPU list; for io
// "rbps=N wbps=N riops=N wiops=N".
type Found struct {
	Resource  string
	Key       string // page size, or major:minor; else empty
	Value     string // in the cgroup of the process itself; empty if it could not be read
	Effective string // the strictest of that cgroup and those above it, where the kernel adds them up; else Value
	Reason    string // why there is no Value
}

// ReadBack reads what is in force for the process pid, for each limit that l sets. l must come from
// [Host.Resolve]. A value that is not there is a Found with a Reason, which [Compare] reports; the error is for a
// process that is gone or whose cgroup cannot be found. Linux 3.2 (v1) or 4.15 (v2) and later.
func (h *Host) ReadBack(pid int, l Limits) ([]Found, error) {
	if l.IsZero() {
		return nil, nil
	}
	text, err := h.read(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("read back the cgroup limits of process %d: %w", pid, err)
	}
	rb := readBack{host: h, text: text, read: h.read}
	if err := rb.all(l); err != nil {
		return nil, fmt.Errorf("read back the cgroup limits of process %d: %w", pid, err)
	}
	return rb.found, nil
}

type readBack struct {
	host  *Host
	text  string                            // of /proc/<pid>/cgroup
	read  func(path string) (string, error) // a file of the host, or what somebody says of it
	found []Found
}

func (rb *readBack) all(l Limits) error {
	for _, r := range resources {
		if l.Has(r.Name) {
			if err := rb.resource(r.Name, l); err != nil {
				return fmt.Errorf("limit %s: %w", r.Name, err)
			}
		}
	}
	return nil
}

func (rb *readBack) resource(name string, l Limits) error {
	v1 := rb.host.Version == V1
	pick := func(onV1, onV2 string) string {
		if v1 {
			return onV1
		}
		return onV2
	}
	switch name {
	case CPU:
		return rb.add(name, "", "cpu", rb.quota, stricterQuota)
	case CPUWeight:
		return rb.add(name, "", "cpu", rb.weight, nil)
	case CPUSet:
		return rb.add(name, "", "cpuset", rb.file("cpuset.cpus"), nil)
	case Memory:
		return rb.add(name, "", "memory", rb.amount(pick("memory.limit_in_bytes", "memory.max")), stricterAmount)
	case MemoryHigh:
		return rb.add(name, "", "memory", rb.amount("memory.high"), stricterAmount)
	case Swap:
		if v1 {
			return rb.add(name, "", "memory", rb.swapV1, nil)
		}
		return rb.add(name, "", "memory", rb.amount("memory.swap.max"), stricterAmount)
	case Pids:
		return rb.add(name, "", "pids", rb.amount("pids.max"), stricterAmount)
	case Hugepages:
		for _, size := range sortedKeys(l.Hugepages) {
			file := "hugetlb." + size + pick(".limit_in_bytes", ".max")
			if err := rb.add(name, size, "hugetlb", rb.amount(file), stricterAmount); err != nil {
				return err
			}
		}
	case IO:
		for _, d := range l.IO {
			if err := rb.add(name, d.Device, "io", rb.ioMax(d.Device), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// A reader returns one value of the cgroup in dir.
type reader func(dir string) (string, error)

// add reads a value in the process's cgroup and, where stricter combines two levels, in each one above it.
func (rb *readBack) add(resource, key, controller string, read reader, stricter func(a, b string) string) error {
	f := Found{Resource: resource, Key: key}
	m, ok := rb.host.controller(controller)
	if !ok {
		f.Reason = "the " + controller + " controller is not mounted"
		rb.found = append(rb.found, f)
		return nil
	}
	cgroup, err := rb.host.cgroupOf(rb.text, controller)
	if err != nil {
		return err
	}
	dir, err := m.dir(cgroup)
	if err != nil {
		return err
	}
	value, err := read(dir)
	if err != nil {
		f.Reason = err.Error()
		rb.found = append(rb.found, f)
		return nil //nolint:nilerr // it is told in Reason
	}
	f.Value, f.Effective = value, value
	for stricter != nil && dir != m.point {
		dir = filepath.Dir(dir)
		above, err := read(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the root of a hierarchy has no limits, nor have levels without the controller
		}
		if err != nil {
			return err
		}
		f.Effective = stricter(f.Effective, above)
	}
	rb.found = append(rb.found, f)
	return nil
}

func (rb *readBack) file(name string) reader {
	return func(dir string) (string, error) { return rb.read(filepath.Join(dir, name)) }
}

// unlimitedV1 is what v1's byte counters show without a limit: the largest int64 in whole pages, whatever the
// page size (PAGE_COUNTER_MAX, include/linux/page_counter.h).
const unlimitedV1 = noLimit &^ (64<<10 - 1)

// amount reads a number or "max"; v1's -1 and its largest number become "max".
func (rb *readBack) amount(name string) reader {
	return func(dir string) (string, error) {
		s, err := rb.read(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if s == "max" || s == "-1" {
			return "max", nil
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return "", fmt.Errorf("%s in %s has %q: %w", name, dir, s, err)
		}
		if n >= uint64(unlimitedV1) {
			return "max", nil
		}
		return s, nil
	}
}

func (rb *readBack) quota(dir string) (string, error) {
	if rb.host.Version == V2 {
		return rb.read(filepath.Join(dir, "cpu.max"))
	}
	quota, err := rb.amount("cpu.cfs_quota_us")(dir)
	if err != nil {
		return "", err
	}
	period, err := rb.read(filepath.Join(dir, "cpu.cfs_period_us"))
	return quota + " " + period, err
}

func (rb *readBack) weight(dir string) (string, error) {
	if rb.host.Version == V2 {
		return rb.read(filepath.Join(dir, "cpu.weight"))
	}
	s, err := rb.read(filepath.Join(dir, "cpu.shares"))
	if err != nil {
		return "", err
	}
	shares, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return "", fmt.Errorf("cpu.shares in %s has %q: %w", dir, s, err)
	}
	return strconv.FormatUint(weightOfShares(shares), 10), nil
}

// swapV1 is the room for swap that v1 leaves: memory and swap together, less memory.
func (rb *readBack) swapV1(dir string) (string, error) {
	sum, err := rb.amount("memory.memsw.limit_in_bytes")(dir)
	if err != nil || sum == "max" {
		return sum, err
	}
	limit, err := rb.amount("memory.limit_in_bytes")(dir)
	if err != nil || limit == "max" {
		return sum, err
	}
	a, errA := strconv.ParseInt(sum, 10, 64)
	b, errB := strconv.ParseInt(limit, 10, 64)
	return plain(max(0, a-b)), errors.Join(errA, errB)
}

// ioMax reads the rates of one device. v1 has a file a rate, with a line a device, and no line without limit.
func (rb *readBack) ioMax(device string) reader {
	return func(dir string) (string, error) {
		values := map[string]string{}
		for _, k := range ioKeys {
			values[k.v2] = "max"
			if rb.host.Version == V2 {
				continue
			}
			text, err := rb.read(filepath.Join(dir, k.v1))
			if err != nil {
				return "", err
			}
			for line := range strings.Lines(text) {
				if f := strings.Fields(line); len(f) == 2 && f[0] == device {
					values[k.v2] = f[1]
				}
			}
		}
		if rb.host.Version == V2 {
			text, err := rb.read(filepath.Join(dir, "io.max"))
			if err != nil {
				return "", err
			}
			for line := range strings.Lines(text) {
				f := strings.Fields(line)
				if len(f) == 0 || f[0] != device {
					continue
				}
				for _, pair := range f[1:] {
					if key, v, ok := strings.Cut(pair, "="); ok {
						values[key] = v
					}
				}
			}
		}
		var parts []string
		for _, k := range ioKeys {
			parts = append(parts, k.v2+"="+values[k.v2])
		}
		return strings.Join(parts, " "), nil
	}
}

func stricterAmount(a, b string) string {
	x, errX := parseKernel(a)
	y, errY := parseKernel(b)
	if errX != nil || errY == nil && y < x {
		return b
	}
	return a
}

func stricterQuota(a, b string) string {
	qa, pa, errA := parseQuota(a)
	qb, pb, errB := parseQuota(b)
	switch {
	case errA != nil || errB != nil || qb == noLimit:
		return a
	case qa == noLimit || float64(qb)/float64(pb) < float64(qa)/float64(pa):
		return b
	}
	return a
}

// parseQuota reads "QUOTA PERIOD", the form of cpu.max.
func parseQuota(s string) (quota, period int64, err error) {
	f := strings.Fields(s)
	if len(f) != 2 {
		return 0, 0, fmt.Errorf("%q is not QUOTA PERIOD", s)
	}
	quota, errQ := parseKernel(f[0])
	period, errP := parseKernel(f[1])
	if err := errors.Join(errQ, errP); err != nil || period <= 0 {
		return 0, 0, fmt.Errorf("%q is not QUOTA PERIOD", s)
	}
	return quota, period, nil
}
