// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// inForce says what a delegate would put in force, the slow and obvious way: the reference for the property
// below. Values are floats so that rates compare; +Inf is "no limit".
func inForce(r *specs.LinuxResources, v Version) map[string]float64 {
	out := map[string]float64{}
	number := func(p *int64) float64 {
		if p == nil || *p <= 0 {
			return math.Inf(1)
		}
		return float64(*p)
	}
	cpu, mem := specs.LinuxCPU{}, specs.LinuxMemory{}
	if r.CPU != nil {
		cpu = *r.CPU
	}
	if r.Memory != nil {
		mem = *r.Memory
	}
	period := 100000.0
	if cpu.Period != nil && *cpu.Period != 0 {
		period = float64(*cpu.Period)
	}
	quota, burst := number(cpu.Quota), 0.0
	if cpu.Burst != nil {
		burst = float64(*cpu.Burst)
	}
	out["weight"] = 100
	if cpu.Shares != nil && *cpu.Shares != 0 {
		out["weight"] = float64(weightOfShares(*cpu.Shares))
	}
	out["memory"] = number(mem.Limit)
	total := number(mem.Swap)
	out["swap"] = max(0, total-out["memory"])
	if math.IsInf(total, 1) || math.IsInf(out["memory"], 1) {
		out["swap"] = total
	}
	out["high"], out["pids"] = math.Inf(1), math.Inf(1)
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit >= 0 {
		out["pids"] = max(1, float64(*r.Pids.Limit))
	}
	out["rbps"] = math.Inf(1)
	if r.BlockIO != nil {
		for _, t := range r.BlockIO.ThrottleReadBpsDevice {
			if t.Major == 8 && t.Minor == 0 {
				out["rbps"] = float64(t.Rate)
				if t.Rate == 0 {
					out["rbps"] = math.Inf(1)
				}
			}
		}
	}
	out["huge"] = math.Inf(1)
	for _, h := range r.HugepageLimits {
		if h.Pagesize == "2MB" {
			out["huge"] = float64(h.Limit)
		}
	}
	if v == V2 {
		for key, name := range map[string]string{"memory.max": "memory", "memory.high": "high", "memory.swap.max": "swap", "pids.max": "pids", "cpu.weight": "weight", "hugetlb.2MB.max": "huge"} {
			if s, ok := r.Unified[key]; ok {
				out[name] = kernelFloat(s)
			}
		}
		if f := strings.Fields(r.Unified["cpu.max"]); len(f) > 0 {
			quota = kernelFloat(f[0])
			if len(f) > 1 {
				period = kernelFloat(f[1])
			}
		}
		if s, ok := r.Unified["cpu.max.burst"]; ok {
			burst = kernelFloat(s)
		}
		for line := range strings.Lines(r.Unified["io.max"]) {
			if s, ok := strings.CutPrefix(strings.TrimSpace(line), "8:0 rbps="); ok {
				out["rbps"] = kernelFloat(s)
			}
		}
	}
	out["cpu"] = quota / period * 1000
	out["cpu+burst"] = (quota + burst) / period * 1000
	return out
}

func kernelFloat(s string) float64 {
	if s == "max" {
		return math.Inf(1)
	}
	shift := strings.IndexAny("KMG", s[len(s)-1:])
	n, err := strconv.ParseFloat(strings.TrimRight(s, "KMG"), 64)
	if err != nil {
		panic(err)
	}
	return n * math.Pow(1024, float64(shift+1))
}

func randomResources(rng *rand.Rand) *specs.LinuxResources {
	some := func(values ...int64) *int64 {
		if rng.IntN(3) == 0 {
			return nil
		}
		return &values[rng.IntN(len(values))]
	}
	unsigned := func(values ...int64) *uint64 {
		if p := some(values...); p != nil {
			n := uint64(*p)
			return &n
		}
		return nil
	}
	r := &specs.LinuxResources{Unified: map[string]string{}}
	if rng.IntN(3) > 0 {
		r.CPU = &specs.LinuxCPU{
			Quota: some(-1, 0, 1000, 5000, 50_000, 200_000, math.MaxInt64), Period: unsigned(0, 1000, 50_000, 100_000, 1_000_000),
			Shares: unsigned(0, 2, 100, 1024, 9999, 262144, -1), Burst: unsigned(0, 10, 100_000, -1),
		}
	}
	if rng.IntN(3) > 0 {
		r.Memory = &specs.LinuxMemory{Limit: some(-1, 0, 1, 4096, 1<<30, math.MaxInt64)}
		if rng.IntN(2) == 0 {
			r.Memory.Swap = some(-1, 0, 1<<30, math.MaxInt64)
		}
	}
	if rng.IntN(3) > 0 {
		r.Pids = &specs.LinuxPids{Limit: some(-1, 0, 1, 50, 1000)}
	}
	if rng.IntN(3) > 0 {
		r.BlockIO = &specs.LinuxBlockIO{}
		for range rng.IntN(3) {
			t := specs.LinuxThrottleDevice{Rate: uint64(rng.IntN(3) * 1000)}
			t.Major, t.Minor = 8, int64(rng.IntN(2))
			r.BlockIO.ThrottleReadBpsDevice = append(r.BlockIO.ThrottleReadBpsDevice, t)
		}
	}
	for range rng.IntN(3) {
		r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: []string{"2MB", "1GB"}[rng.IntN(2)], Limit: rng.Uint64N(10)})
	}
	for key, values := range map[string][]string{
		"memory.max": {"max", "0", "4096", "1K", "5G"}, "memory.high": {"max", "10"}, "memory.swap.max": {"max", "0", "1M"}, "pids.max": {"max", "1", "999"},
		"cpu.weight": {"1", "100", "10000"}, "cpu.max": {"max", "max 1000", "5000", "90000 50000"}, "cpu.max.burst": {"0", "1000", "max"},
		"io.max": {"8:0 rbps=max", "8:0 rbps=5\n8:0 rbps=5000"}, "hugetlb.2MB.max": {"max", "1"},
	} {
		if rng.IntN(4) == 0 {
			r.Unified[key] = values[rng.IntN(len(values))]
		}
	}
	return r
}

func randomLimits(rng *rand.Rand) Limits {
	some := func(values ...int64) *int64 {
		if rng.IntN(3) == 0 {
			return nil
		}
		return &values[rng.IntN(len(values))]
	}
	l := Limits{
		CPU: some(1, 7, 500, 1000, 3333, maxCPU), Memory: some(1, 4096, 1<<29, math.MaxInt64-1), Swap: some(0, 1, 1<<20),
		MemoryHigh: some(1, 1<<20), Pids: some(1, 20, 2000), BestEffort: map[string]bool{Swap: true, MemoryHigh: true},
	}
	if n := some(1, 50, 100, 5000, 10000); n != nil {
		l.CPUWeight = ptr(uint64(*n))
	}
	if n := some(0, 5); n != nil {
		l.Hugepages = map[string]int64{"2MB": *n}
	}
	if n := some(1, 500, 1500); n != nil {
		l.IO = []IOLimit{{Device: "8:0", ReadBPS: n}}
	}
	return l
}

// checkClamp holds one case to the promise: no value above its ceiling, none above what was asked.
func checkClamp(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r, l, v := randomResources(rng), randomLimits(rng), Version(1+rng.IntN(2))
	if v == V1 {
		r.Unified = nil
	}
	before := inForce(r, v)
	text, _ := json.Marshal(r)
	changes, err := Clamp(r, l, v)
	if err != nil {
		return // refused: nothing starts
	}
	after := inForce(r, v)
	now, _ := json.Marshal(r)
	fail := func(what string) {
		lim, _ := json.Marshal(l)
		t.Fatalf("seed %d %v: %s\nlimits %s\nbefore %s\nafter  %s", seed, v, what, lim, text, now)
	}
	const slack = 1 + 1e-9 // of the reference's floating point
	for name, n := range after {
		// v1 has one bound for memory and swap: with less memory, what v1 calls swap may grow, the sum may not.
		if name == "swap" && v == V1 {
			if n+after["memory"] > (before["swap"]+before["memory"])*slack && l.Swap == nil {
				fail("memory and swap were raised")
			}
			continue
		}
		if n > before[name]*slack {
			fail(name + " was raised")
		}
	}
	ceilings := map[string]*int64{"cpu": l.CPU, "cpu+burst": l.CPU, "memory": l.Memory, "pids": l.Pids}
	if l.CPUWeight != nil {
		ceilings["weight"] = ptr(int64(*l.CPUWeight))
	}
	if v == V2 {
		ceilings["high"], ceilings["swap"] = l.MemoryHigh, l.Swap
	} else if l.Memory != nil {
		ceilings["swap"] = l.Swap
	}
	if n, ok := l.Hugepages["2MB"]; ok {
		ceilings["huge"] = &n
	}
	if len(l.IO) > 0 {
		ceilings["rbps"] = l.IO[0].ReadBPS
	}
	for name, c := range ceilings {
		if c != nil && after[name] > float64(*c)*slack {
			fail(name + " is above its ceiling")
		}
	}
	if again, err := Clamp(r, l, v); err != nil || len(again) > 0 {
		fail("clamping is not idempotent")
	}
	for _, c := range changes {
		if c.Resource == "" || c.Field == "" || c.Ceiling == "" {
			fail("a change says too little")
		}
	}
}

func TestClampNeverRaises(t *testing.T) {
	for seed := range uint64(4000) {
		checkClamp(t, seed)
	}
}

func FuzzClamp(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(checkClamp)
}

// A sequence of updates must keep what is in force, as a delegate that merges updates would have it, under
// the ceilings.
func TestUpdatesStayBelow(t *testing.T) {
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l := randomLimits(rng)
		state := &specs.LinuxResources{}
		if _, err := Clamp(state, l, V2); err != nil {
			continue // memory and swap ceilings that are too large together
		}
		current := Remember(state, nil)
		for range 4 {
			r := randomResources(rng)
			r.BlockIO, r.HugepageLimits = nil, nil
			if _, err := ClampUpdate(r, current, l, V2); err != nil {
				continue // refused: nothing changes
			}
			current = Remember(current, r)
			merged := &specs.LinuxResources{CPU: current.CPU, Memory: current.Memory, Pids: current.Pids, Unified: r.Unified}
			merged.CPU.Burst = nil
			if r.CPU != nil {
				merged.CPU.Burst = r.CPU.Burst
			}
			got := inForce(merged, V2)
			ceilings := map[string]*int64{"cpu": l.CPU, "cpu+burst": l.CPU, "memory": l.Memory, "pids": l.Pids}
			if l.Memory != nil {
				ceilings["swap"] = l.Swap
			}
			for name, c := range ceilings {
				if c != nil && got[name] > float64(*c)*(1+1e-9) {
					now, _ := json.Marshal(merged)
					t.Fatalf("seed %d: %s is %v, above %d: %s", seed, name, got[name], *c, now)
				}
			}
		}
	}
}
