// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const mi = 1 << 20

// Resources are written as JSON here: it is the form that they come in, and shows absent, zero and negative.
func TestClamp(t *testing.T) {
	cpu2 := Limits{CPU: ptr(int64(2000))}
	mem := Limits{Memory: ptr(int64(100 * mi))}
	memSwap := Limits{Memory: ptr(int64(100 * mi)), Swap: ptr(int64(0))}
	io := Limits{IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(1000)), WriteIOPS: ptr(int64(10))}}}
	tests := []struct {
		name     string
		l        Limits
		v        Version
		in, want string
		changes  int
	}{
		{"nothing to clamp", Limits{}, V2, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1}}`, 0},
		{"cpu absent", cpu2, V2, `{}`, `{"cpu":{"quota":200000,"period":100000}}`, 1},
		{"cpu zero is absent", cpu2, V2, `{"cpu":{"quota":0,"period":0}}`, `{"cpu":{"quota":200000,"period":100000}}`, 1},
		{"cpu unlimited", cpu2, V1, `{"cpu":{"quota":-1,"period":50000}}`, `{"cpu":{"quota":100000,"period":50000}}`, 1},
		{"cpu lower", cpu2, V2, `{"cpu":{"quota":150000,"period":100000}}`, `{"cpu":{"quota":150000,"period":100000}}`, 0},
		{"cpu equal", cpu2, V2, `{"cpu":{"quota":200000,"period":100000}}`, `{"cpu":{"quota":200000,"period":100000}}`, 0},
		{"cpu higher", cpu2, V2, `{"cpu":{"quota":400000,"period":100000}}`, `{"cpu":{"quota":200000,"period":100000}}`, 1},
		{"cpu higher by its period", cpu2, V2, `{"cpu":{"quota":200000,"period":1000}}`, `{"cpu":{"quota":2000,"period":1000}}`, 1},
		{"cpu too small for the period", Limits{CPU: ptr(int64(5))}, V2, `{"cpu":{"period":100000}}`, `{"cpu":{"quota":1000,"period":200000}}`, 1},
		{"least cpu", Limits{CPU: ptr(int64(1))}, V2, `{}`, `{"cpu":{"quota":1000,"period":1000000}}`, 1},
		{"burst has no room", cpu2, V2, `{"cpu":{"quota":200000,"period":100000,"burst":5000}}`, `{"cpu":{"quota":200000,"period":100000,"burst":0}}`, 1},
		{"burst has room", cpu2, V2, `{"cpu":{"quota":150000,"period":100000,"burst":60000}}`, `{"cpu":{"quota":150000,"period":100000,"burst":50000}}`, 1},
		{"real time", cpu2, V1, `{"cpu":{"quota":1000,"period":100000,"realtimeRuntime":950000,"realtimePeriod":1000000}}`, `{"cpu":{"quota":1000,"period":100000,"realtimePeriod":1000000}}`, 1},
		{"weight above default needs nothing", Limits{CPUWeight: ptr(uint64(100))}, V2, `{}`, `{}`, 0},
		{"weight below default", Limits{CPUWeight: ptr(uint64(50))}, V2, `{}`, `{"cpu":{"shares":421}}`, 1},
		{"weight", Limits{CPUWeight: ptr(uint64(100))}, V1, `{"cpu":{"shares":2048}}`, `{"cpu":{"shares":1024}}`, 1},
		{"weight kept", Limits{CPUWeight: ptr(uint64(100))}, V1, `{"cpu":{"shares":2}}`, `{"cpu":{"shares":2}}`, 0},
		{"cpuset absent", Limits{CPUSet: "0-1"}, V2, `{}`, `{"cpu":{"cpus":"0-1"}}`, 1},
		{"cpuset", Limits{CPUSet: "0-1"}, V2, `{"cpu":{"cpus":"1-5"}}`, `{"cpu":{"cpus":"1"}}`, 1},
		{"cpuset within keeps its spelling", Limits{CPUSet: "0-3"}, V2, `{"cpu":{"cpus":"0,1"}}`, `{"cpu":{"cpus":"0,1"}}`, 0},
		{"memory absent", mem, V2, `{"memory":{}}`, `{"memory":{"limit":104857600}}`, 1},
		{"memory unlimited", mem, V1, `{"memory":{"limit":-1,"swap":-1}}`, `{"memory":{"limit":104857600,"swap":-1}}`, 1},
		{"memory lower", mem, V2, `{"memory":{"limit":4096}}`, `{"memory":{"limit":4096}}`, 0},
		{"lower memory does not become swap", mem, V2, `{"memory":{"limit":209715200,"swap":209715200}}`, `{"memory":{"limit":104857600,"swap":104857600}}`, 1},
		{"swap part kept", mem, V2, `{"memory":{"limit":209715200,"swap":209716200}}`, `{"memory":{"limit":104857600,"swap":104858600}}`, 1},
		{"sum bounds memory on v1", mem, V1, `{"memory":{"swap":4096}}`, `{"memory":{"limit":4096,"swap":4096}}`, 1},
		{"swap absent", memSwap, V2, `{}`, `{"memory":{"limit":104857600,"swap":104857600}}`, 2},
		{"swap unlimited", memSwap, V1, `{"memory":{"limit":4096,"swap":-1}}`, `{"memory":{"limit":4096,"swap":4096}}`, 1},
		{"swap within", Limits{Swap: ptr(int64(100))}, V2, `{"memory":{"limit":4096,"swap":4100}}`, `{"memory":{"limit":4096,"swap":4100}}`, 0},
		{"swap alone on v2", Limits{Swap: ptr(int64(0))}, V2, `{}`, `{"unified":{"memory.swap.max":"0"}}`, 1},
		{"swap alone, asked", Limits{Swap: ptr(int64(7))}, V2, `{"unified":{"memory.swap.max":"max"}}`, `{"unified":{"memory.swap.max":"7"}}`, 1},
		{"swap alone, best effort on v1", Limits{Swap: ptr(int64(0)), BestEffort: map[string]bool{Swap: true}}, V1, `{}`, `{}`, 0},
		{"high", Limits{MemoryHigh: ptr(int64(4096))}, V2, `{}`, `{"unified":{"memory.high":"4096"}}`, 1},
		{"high lower", Limits{MemoryHigh: ptr(int64(4096))}, V2, `{"unified":{"memory.high":"1K"}}`, `{"unified":{"memory.high":"1K"}}`, 0},
		{"high, best effort on v1", Limits{MemoryHigh: ptr(int64(1)), BestEffort: map[string]bool{MemoryHigh: true}}, V1, `{}`, `{}`, 0},
		{"pids absent", Limits{Pids: ptr(int64(9))}, V2, `{}`, `{"pids":{"limit":9}}`, 1},
		{"pids unlimited", Limits{Pids: ptr(int64(9))}, V2, `{"pids":{"limit":-1}}`, `{"pids":{"limit":9}}`, 1},
		{"pids zero is the least", Limits{Pids: ptr(int64(9))}, V2, `{"pids":{"limit":0}}`, `{"pids":{"limit":1}}`, 1},
		{"pids lower", Limits{Pids: ptr(int64(9))}, V2, `{"pids":{"limit":8}}`, `{"pids":{"limit":8}}`, 0},
		{"hugepages", Limits{Hugepages: map[string]int64{"2MB": 0, "1GB": 1 << 30}}, V2,
			`{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615},{"pageSize":"64KB","limit":1}]}`,
			`{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"64KB","limit":1},{"pageSize":"1GB","limit":1073741824}]}`, 2},
		{"io absent", io, V2, `{}`, `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":10}]}}`, 2},
		{"io", io, V1,
			`{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5},{"major":8,"minor":16,"rate":9999},{"major":8,"minor":0,"rate":0}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":11}]}}`,
			`{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5},{"major":8,"minor":16,"rate":9999},{"major":8,"minor":0,"rate":1000}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":10}]}}`, 2},
		{"unified", Limits{CPU: ptr(int64(1000)), CPUWeight: ptr(uint64(100)), CPUSet: "0-1", Memory: ptr(int64(4096)), Swap: ptr(int64(0)), Pids: ptr(int64(5)),
			Hugepages: map[string]int64{"2MB": 0}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(10))}}}, V2,
			`{"cpu":{"quota":1000,"period":100000,"cpus":"0","burst":90000},"memory":{"limit":4096,"swap":4096},"pids":{"limit":1},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
			  "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},
			  "unified":{"memory.max":"max","memory.min":"9999","memory.swap.max":"1G","pids.max":"6","cpu.max":"max","cpu.max.burst":"1","cpu.weight":"10000","cpu.weight.nice":"-20",
			  "cpuset.cpus":"1-9","cpuset.cpus.exclusive":"0-1","hugetlb.2MB.max":"2097152","hugetlb.2MB.rsvd.max":"max","io.max":"8:0 rbps=max wbps=max\n8:16 rbps=max\n8:0 rbps=9","some.thing":"x"}}`,
			`{"cpu":{"quota":1000,"period":100000,"cpus":"0","burst":0},"memory":{"limit":4096,"swap":4096},"pids":{"limit":1},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
			  "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},
			  "unified":{"memory.max":"4096","memory.min":"9999","memory.swap.max":"0","pids.max":"5","cpu.max":"100000 100000","cpu.max.burst":"0","cpu.weight":"100","cpu.weight.nice":"0",
			  "cpuset.cpus":"1","cpuset.cpus.exclusive":"0-1","hugetlb.2MB.max":"0","hugetlb.2MB.rsvd.max":"0","io.max":"8:0 rbps=10 wbps=max\n8:16 rbps=max\n8:0 rbps=9","some.thing":"x"}}`, 12},
		{"unified is left alone on v1", mem, V1, `{"memory":{"limit":1},"unified":{"memory.max":"max"}}`, `{"memory":{"limit":1},"unified":{"memory.max":"max"}}`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := decode(t, tt.in)
			changes, err := Clamp(r, tt.l, tt.v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decode(t, tt.want), r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(changes) != tt.changes {
				t.Errorf("%d changes, want %d: %+v", len(changes), tt.changes, changes)
			}
			again, err := Clamp(r, tt.l, tt.v)
			if err != nil || len(again) != 0 {
				t.Errorf("clamping again changed %+v, %v", again, err)
			}
		})
	}
}

func TestClampUpdate(t *testing.T) {
	all := Limits{CPU: ptr(int64(2000)), CPUWeight: ptr(uint64(50)), CPUSet: "0-1", Memory: ptr(int64(100 * mi)), MemoryHigh: ptr(int64(50 * mi)), Swap: ptr(int64(0)), Pids: ptr(int64(9)),
		Hugepages: map[string]int64{"2MB": 0}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(10))}}}
	current := `{"cpu":{"quota":50000,"period":100000},"memory":{"limit":1000,"swap":1500},"pids":{"limit":7}}`
	tests := []struct {
		name              string
		l                 Limits
		current, in, want string
		changes           int
	}{
		{"absent stays absent", all, "", `{}`, `{}`, 0},
		{"pids are repeated", all, current, `{"cpu":{}}`, `{"cpu":{},"pids":{"limit":7}}`, 0},
		{"above", all, "", `{"cpu":{"quota":300000,"period":100000,"shares":9999,"cpus":"0-5"},"memory":{"limit":209715200},"pids":{"limit":10}}`,
			`{"cpu":{"quota":200000,"period":100000,"shares":421,"cpus":"0-1"},"memory":{"limit":104857600,"swap":104857600},"pids":{"limit":9}}`, 6},
		{"period alone keeps the quota in force", Limits{CPU: all.CPU}, current, `{"cpu":{"period":50000}}`, `{"cpu":{"quota":50000,"period":50000}}`, 0},
		{"period alone cannot raise", Limits{CPU: all.CPU}, current, `{"cpu":{"period":1000}}`, `{"cpu":{"quota":2000,"period":1000}}`, 1},
		{"period alone, nothing known", Limits{CPU: all.CPU}, "", `{"cpu":{"period":1000}}`, `{"cpu":{"quota":2000,"period":1000}}`, 1},
		{"quota alone takes the period in force", Limits{CPU: all.CPU}, `{"cpu":{"quota":1000,"period":2000}}`, `{"cpu":{"quota":5000}}`, `{"cpu":{"quota":4000,"period":2000}}`, 1},
		{"burst alone", Limits{CPU: all.CPU}, `{"cpu":{"quota":190000,"period":100000}}`, `{"cpu":{"burst":50000}}`, `{"cpu":{"burst":10000}}`, 1},
		{"memory alone keeps the swap in force", Limits{Memory: all.Memory, Swap: ptr(int64(1000))}, current, `{"memory":{"limit":2000}}`, `{"memory":{"limit":2000,"swap":2500}}`, 0},
		{"lowered memory does not become swap", Limits{Memory: all.Memory}, `{"memory":{"limit":1000,"swap":209715200}}`, `{"memory":{"limit":209715200}}`, `{"memory":{"limit":104857600,"swap":104857600}}`, 1},
		{"unlimited memory", Limits{Memory: all.Memory}, "", `{"memory":{"limit":-1}}`, `{"memory":{"limit":104857600}}`, 1},
		{"io", all, "", `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]}}`, `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":10}]}}`, 1},
		{"unified", all, "", `{"unified":{"memory.high":"max","cpu.max":"max 1000"}}`, `{"unified":{"memory.high":"52428800","cpu.max":"2000 1000"}}`, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var now *specs.LinuxResources
			if tt.current != "" {
				now = decode(t, tt.current)
			}
			r := decode(t, tt.in)
			changes, err := ClampUpdate(r, now, tt.l, V2)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decode(t, tt.want), r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(changes) != tt.changes {
				t.Errorf("%d changes, want %d: %+v", len(changes), tt.changes, changes)
			}
		})
	}
	if _, err := ClampUpdate(decode(t, `{"memory":{"swap":5}}`), nil, all, V2); err == nil {
		t.Error("an update of swap without memory was taken, with the memory unknown")
	}
}

func TestRemember(t *testing.T) {
	now := Remember(decode(t, `{"cpu":{"quota":1,"period":2},"memory":{"limit":3,"swap":4},"pids":{"limit":5}}`), nil)
	now = Remember(now, decode(t, `{"cpu":{"quota":0,"period":9},"memory":{"swap":8},"unified":{"a":"b"}}`))
	want := decode(t, `{"cpu":{"quota":1,"period":9},"memory":{"limit":3,"swap":8},"pids":{"limit":5}}`)
	if diff := cmp.Diff(want, now); diff != "" {
		t.Error(diff)
	}
}

func TestClampRefuses(t *testing.T) {
	tests := []struct {
		name, in, err string
		l             Limits
		v             Version
	}{
		{"period out of range", `{"cpu":{"period":2000000}}`, "the kernel takes", Limits{CPU: ptr(int64(1))}, V2},
		{"period overflows", `{"cpu":{"period":18446744073709551615}}`, "the kernel takes", Limits{CPU: ptr(int64(1))}, V2},
		{"no CPU in common", `{"cpu":{"cpus":"4"}}`, "no CPU is in both", Limits{CPUSet: "0-3"}, V2},
		{"bad cpuset", `{"cpu":{"cpus":"0-31:2/4"}}`, "no CPU or range", Limits{CPUSet: "0-3"}, V2},
		{"disjoint profile", `{}`, "no CPU in common", Limits{CPUSet: NoCPUs}, V2},
		{"sum below memory", `{"memory":{"limit":2,"swap":1}}`, "below its memory", Limits{Swap: ptr(int64(0))}, V2},
		{"sum overflows", `{"memory":{"limit":9223372036854775806}}`, "too large", Limits{Swap: ptr(int64(5))}, V2},
		{"high on v1", `{}`, "no memory.high", Limits{MemoryHigh: ptr(int64(1))}, V1},
		{"swap alone on v1", `{}`, "memory and swap together", Limits{Swap: ptr(int64(0))}, V1},
		{"device unresolved", `{}`, "not resolved", Limits{IO: []IOLimit{{Device: "/dev/sda", ReadBPS: ptr(int64(1))}}}, V2},
		{"two lines", `{"unified":{"memory.max":"1\nmax"}}`, "neither max nor", Limits{Memory: ptr(int64(5))}, V2},
		{"octal", `{"unified":{"pids.max":"010"}}`, "neither max nor", Limits{Pids: ptr(int64(9))}, V2},
		{"empty", `{"unified":{"memory.max":""}}`, "neither max nor", Limits{Memory: ptr(int64(9))}, V2},
		{"two lines of cpu", `{"unified":{"cpu.max":"1000\nmax"}}`, "is not QUOTA PERIOD", Limits{CPU: ptr(int64(9))}, V2},
		{"bad period", `{"unified":{"cpu.max":"1000 5"}}`, "the kernel takes", Limits{CPU: ptr(int64(9))}, V2},
		{"io key", `{"unified":{"io.max":"8:0 foo=1"}}`, "unknown key", Limits{IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(1))}}}, V2},
		{"io device", `{"unified":{"io.max":"sda rbps=1"}}`, "major:minor", Limits{IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(1))}}}, V2},
		{"version", `{}`, "know only", Limits{Pids: ptr(int64(1))}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Clamp(decode(t, tt.in), tt.l, tt.v)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
			var u *UnenforceableError
			if isV1 := tt.v == V1; errors.As(err, &u) != isV1 {
				t.Errorf("%T: only what v1 lacks is unenforceable", err)
			}
		})
	}
	if _, err := Clamp(nil, Limits{Pids: ptr(int64(1))}, V2); err == nil {
		t.Error("nil was clamped")
	}
	if c, err := Clamp(nil, Limits{}, V2); c != nil || err != nil {
		t.Errorf("got %v, %v", c, err)
	}
}

func decode(t *testing.T, s string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(s), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}
