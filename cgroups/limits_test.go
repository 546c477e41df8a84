// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ptr[T any](v T) *T { return &v }

func TestTighten(t *testing.T) {
	a := Limits{
		CPU: ptr(int64(2000)), CPUWeight: ptr(uint64(50)), CPUSet: "0-3", Memory: ptr(int64(100)), Pids: ptr(int64(10)),
		Hugepages: map[string]int64{"2MB": 5, "1GB": 7}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(5)), WriteBPS: ptr(int64(9))}},
		BestEffort: map[string]bool{Pids: true, Memory: true, Swap: true, Hugepages: true},
	}
	b := Limits{
		CPU: ptr(int64(3000)), CPUSet: "2-5", Memory: ptr(int64(50)), Swap: ptr(int64(0)), MemoryHigh: ptr(int64(40)),
		Hugepages: map[string]int64{"2MB": 3}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(6)), ReadIOPS: ptr(int64(1))}, {Device: "8:16", WriteBPS: ptr(int64(2))}},
		BestEffort: map[string]bool{Memory: true, CPU: true},
	}
	want := Limits{
		CPU: ptr(int64(2000)), CPUWeight: ptr(uint64(50)), CPUSet: "2-3", Memory: ptr(int64(50)), MemoryHigh: ptr(int64(40)), Swap: ptr(int64(0)), Pids: ptr(int64(10)),
		Hugepages: map[string]int64{"2MB": 3, "1GB": 7},
		IO: []IOLimit{
			{Device: "8:0", ReadBPS: ptr(int64(5)), WriteBPS: ptr(int64(9)), ReadIOPS: ptr(int64(1))},
			{Device: "8:16", WriteBPS: ptr(int64(2))},
		},
		// Swap is not: b sets it without; a's word on it does not count, since a does not set it.
		BestEffort: map[string]bool{Pids: true, Memory: true},
	}
	if diff := cmp.Diff(want, a.Tighten(b)); diff != "" {
		t.Errorf("a over b (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, b.Tighten(a)); diff != "" {
		t.Errorf("b over a (-want +got):\n%s", diff)
	}
	if !(Limits{}).Tighten(Limits{}).IsZero() {
		t.Error("nothing tightens to something")
	}
	*a.Tighten(Limits{}).CPU = 1
	a.Tighten(Limits{}).Hugepages["2MB"] = 1
	*a.Tighten(Limits{}).IO[0].ReadBPS = 1
	if *a.CPU != 2000 || a.Hugepages["2MB"] != 5 || *a.IO[0].ReadBPS != 5 {
		t.Error("the result shares memory with an operand")
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name, err string
		l         Limits
	}{
		{"zero cpu", "limit cpu: 0 is below 1", Limits{CPU: ptr(int64(0))}},
		{"huge cpu", "more than any machine", Limits{CPU: ptr(int64(maxCPU + 1))}},
		{"weight", "write 1 to 10000", Limits{CPUWeight: ptr(uint64(10001))}},
		{"cpuset", "limit cpuset", Limits{CPUSet: "x"}},
		{"disjoint", "no CPU in common", Limits{CPUSet: NoCPUs}},
		{"memory", "limit memory: 0", Limits{Memory: ptr(int64(0))}},
		{"swap", "limit swap: -1", Limits{Swap: ptr(int64(-1))}},
		{"pids", "limit pids: 0", Limits{Pids: ptr(int64(0))}},
		{"hugepages", "such as 2MB", Limits{Hugepages: map[string]int64{"2Mi": 1}}},
		{"io path", "is no device", Limits{IO: []IOLimit{{Device: "sda", ReadBPS: ptr(int64(1))}}}},
		{"io twice", "named twice", Limits{IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(1))}, {Device: "8:0", ReadBPS: ptr(int64(1))}}}},
		{"io empty", "bounds nothing", Limits{IO: []IOLimit{{Device: "8:0"}}}},
		{"io zero", "is below 1", Limits{IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(0))}}}},
		{"best effort", "does not exist", Limits{BestEffort: map[string]bool{"ram": true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.l.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got %v, want an error with %q", err, tt.err)
			}
			var field *FieldError
			if !errors.As(err, &field) {
				t.Errorf("%T has no FieldError", err)
			}
		})
	}
	ok := Limits{
		CPU: ptr(int64(1)), CPUWeight: ptr(uint64(1)), CPUSet: "0", Memory: ptr(int64(1)), MemoryHigh: ptr(int64(1)), Swap: ptr(int64(0)), Pids: ptr(int64(1)),
		Hugepages: map[string]int64{"2MB": 0}, IO: []IOLimit{{Device: "/dev/sda", WriteIOPS: ptr(int64(1))}}, BestEffort: map[string]bool{IO: true},
	}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range Resources() {
		if !ok.Has(r.Name) || !KnownResource(r.Name) {
			t.Errorf("%s is in the vocabulary, but not in Has", r.Name)
		}
	}
}
