// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadBack(t *testing.T) {
	tests := map[string][]Found{
		"v2": {
			{Resource: CPU, Value: "150000 100000", Effective: "100000 100000"},
			{Resource: CPUWeight, Value: "39", Effective: "39"},
			{Resource: CPUSet, Value: "0-1", Effective: "0-1"},
			{Resource: Memory, Value: "104857600", Effective: "104857600"},
			{Resource: MemoryHigh, Value: "max", Effective: "4096"},
			{Resource: Swap, Value: "0", Effective: "0"},
			{Resource: Pids, Value: "64", Effective: "32"},
			{Resource: Hugepages, Key: "1GB", Reason: "open: no such file or directory"},
			{Resource: Hugepages, Key: "2MB", Value: "0", Effective: "0"},
			{Resource: IO, Key: "8:0", Value: "rbps=1048576 wbps=max riops=max wiops=120", Effective: "rbps=1048576 wbps=max riops=max wiops=120"},
		},
		"v1": {
			{Resource: CPU, Value: "50000 100000", Effective: "50000 100000"},
			{Resource: CPUWeight, Value: "100", Effective: "100"},
			{Resource: CPUSet, Reason: "the cpuset controller is not mounted"},
			{Resource: Memory, Value: "104857600", Effective: "104857600"},
			{Resource: MemoryHigh, Reason: "open: no such file or directory"},
			{Resource: Swap, Value: "4096", Effective: "4096"},
			{Resource: Pids, Value: "max", Effective: "5"},
			{Resource: Hugepages, Key: "1GB", Reason: "the hugetlb controller is not mounted"},
			{Resource: Hugepages, Key: "2MB", Reason: "the hugetlb controller is not mounted"},
			{Resource: IO, Key: "8:0", Value: "rbps=1048576 wbps=max riops=max wiops=120", Effective: "rbps=1048576 wbps=max riops=max wiops=120"},
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := machines[name].host(t).ReadBack(7, full)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got { // paths under t.TempDir
				if first, last, ok := strings.Cut(got[i].Reason, " /"); ok {
					got[i].Reason = first + last[strings.LastIndex(last, ":"):]
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	hybrid, err := machines["hybrid"].host(t).ReadBack(7, Limits{Swap: ptr(int64(0)), Memory: ptr(int64(1)), Pids: ptr(int64(1))})
	want := []Found{{Resource: Memory, Value: "4096", Effective: "4096"}, {Resource: Swap, Value: "max", Effective: "max"}, {Resource: Pids, Value: "3", Effective: "3"}}
	if diff := cmp.Diff(want, hybrid); diff != "" || err != nil {
		t.Errorf("hybrid: %v (-want +got):\n%s", err, diff)
	}
}

func TestReadBackErrors(t *testing.T) {
	l := Limits{Pids: ptr(int64(1))}
	if _, err := machines["v2"].host(t).ReadBack(8, l); err == nil {
		t.Error("a process that is gone has limits")
	}
	for name, text := range map[string]string{
		"outside the namespace": "0::/../other\n", "no unified line": "5:pids:/x\n", "empty": "\n", "relative": "0::x\n",
	} {
		if got, err := machines["v2"].host(t, "/proc/7/cgroup", text).ReadBack(7, l); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	h := machines["v1"].host(t, "/proc/7/cgroup", "5:memory:/docker/kk/c1\n")
	if got, err := h.ReadBack(7, Limits{Memory: ptr(int64(1))}); err == nil {
		t.Errorf("a cgroup outside the mount: %+v", got)
	}
	h = machines["v2"].host(t, "/sys/fs/cgroup/kubepods/pod1/c1/pids.max", "many\n")
	got, err := h.ReadBack(7, l)
	if err != nil || len(mismatches(l, got)) != 1 {
		t.Errorf("a value that is no number passes: %+v, %v", got, err)
	}
	if got, err := h.ReadBack(8, Limits{}); got != nil || err != nil {
		t.Errorf("nothing to read: %v, %v", got, err)
	}
}

func TestCompare(t *testing.T) {
	h := machines["v2"].host(t)
	l, _, err := h.Resolve(full.bestEffort(MemoryHigh))
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.ReadBack(7, l)
	if err != nil {
		t.Fatal(err)
	}
	want := []Check{
		{Resource: MemoryHigh, Asked: "104857600", Found: "max", BestEffort: true},
		{Resource: IO, Key: "8:0 wiops", Asked: "100", Found: "120"},
	}
	if diff := cmp.Diff(want, mismatches(l, found)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(Compare(l, found)); n != 10 {
		t.Errorf("%d checks, want one for each limit and rate", n)
	}
	for _, c := range mismatches(l, nil) {
		if c.OK || c.Reason == "" {
			t.Errorf("nothing was read, and %+v", c)
		}
	}
	if n := len(mismatches(l, nil)); n != 10 {
		t.Errorf("%d mismatches where nothing was read", n)
	}

	tests := []struct {
		l     Limits
		value string
		ok    bool
	}{
		{Limits{CPU: ptr(int64(333))}, "33300 100000", true},
		{Limits{CPU: ptr(int64(333))}, "33301 100000", false},
		{Limits{CPU: ptr(int64(333))}, "max 100000", false},
		{Limits{CPU: ptr(int64(333))}, "1 0", false},
		{Limits{CPU: ptr(int64(333))}, "", false},
		{Limits{Memory: ptr(int64(5000))}, "4096", true},
		{Limits{Memory: ptr(int64(5000))}, "5001", false},
		{Limits{Memory: ptr(int64(5000))}, "max", false},
		{Limits{CPUSet: "0-3"}, "1-2", true},
		{Limits{CPUSet: "0-3"}, "", false},
		{Limits{CPUSet: "0-3"}, "0-4", false},
		{Limits{CPUWeight: ptr(uint64(50))}, "50", true},
		{Limits{CPUWeight: ptr(uint64(50))}, "51", false},
	}
	for _, tt := range tests {
		resource := CPU
		for _, r := range Resources() {
			if tt.l.Has(r.Name) {
				resource = r.Name
			}
		}
		got := mismatches(tt.l, []Found{{Resource: resource, Value: tt.value}})
		if (len(got) == 0) != tt.ok {
			t.Errorf("%s %q: got %+v", resource, tt.value, got)
		}
	}
}

// TestReadBackOfThisMachine holds the parsers against a real kernel.
func TestReadBackOfThisMachine(t *testing.T) {
	h, err := Detect("")
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := h.Resolve(Limits{
		CPU: ptr(int64(maxCPU)), CPUWeight: ptr(uint64(10000)), CPUSet: "0-8191", Memory: ptr(noLimit - 1), MemoryHigh: ptr(noLimit - 1), Swap: ptr(noLimit - 1), Pids: ptr(noLimit - 1),
	}.bestEffort(CPU, CPUWeight, CPUSet, Memory, MemoryHigh, Swap, Pids))
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.ReadBack(os.Getpid(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %+v", h.Version, found)
	if len(found) == 0 {
		t.Error("this machine enforces nothing at all")
	}
}

// mismatches are what is in force above its ceiling, or not at all.
func mismatches(l Limits, found []Found) []Check {
	return slices.DeleteFunc(Compare(l, found), func(c Check) bool { return c.OK })
}
