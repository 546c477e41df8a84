// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fake is a directory with files as a cgroup has them.
func fake(t *testing.T, files map[string]string) Group {
	t.Helper()
	g := Group(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(g.file(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func pointer[T any](v T) *T { return &v }

func TestSet(t *testing.T) {
	before := map[string]string{
		"cpu.max": "max 100000\n", "cpu.weight": "100\n", "cpuset.mems": "\n", "memory.max": "max\n", "memory.low": "0\n",
		"memory.swap.max": "max\n", "pids.max": "5\n",
	}
	type (
		files = map[string]string
		all   = specs.LinuxResources
	)
	cpu := func(c specs.LinuxCPU) *all { return &all{CPU: &c} }
	memory := func(m specs.LinuxMemory) *all { return &all{Memory: &m} }
	pids := func(limit int64) *all { return &all{Pids: &specs.LinuxPids{Limit: &limit}} }
	tests := map[string]struct {
		set  *all
		want files // what is not as before
	}{
		"nothing":         {nil, nil},
		"pids sent":       {&all{}, nil},
		"pids not sent":   {pids(0), files{"pids.max": "max"}},
		"pids":            {pids(7), files{"pids.max": "7"}},
		"quota":           {cpu(specs.LinuxCPU{Quota: pointer[int64](5000)}), files{"cpu.max": "5000 100000"}},
		"period":          {cpu(specs.LinuxCPU{Period: pointer[uint64](5000)}), files{"cpu.max": "max 5000"}},
		"fewest shares":   {cpu(specs.LinuxCPU{Shares: pointer[uint64](2)}), files{"cpu.weight": "1"}},
		"shares":          {cpu(specs.LinuxCPU{Shares: pointer[uint64](1024)}), files{"cpu.weight": "39"}},
		"most shares":     {cpu(specs.LinuxCPU{Shares: pointer[uint64](262144)}), files{"cpu.weight": "10000"}},
		"CPUs that fail":  {cpu(specs.LinuxCPU{Cpus: "0-99", Mems: "0"}), files{"cpuset.mems": "0"}},
		"memory":          {memory(specs.LinuxMemory{Limit: pointer[int64](9)}), files{"memory.max": "9"}},
		"memory reserved": {memory(specs.LinuxMemory{Reservation: pointer[int64](9)}), files{"memory.low": "9"}},
		"memory with swap": {
			memory(specs.LinuxMemory{Limit: pointer[int64](9), Swap: pointer[int64](12)}),
			files{"memory.max": "9", "memory.swap.max": "12"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := fake(t, before)
			if err := g.Set(test.set); err != nil {
				t.Fatal(err)
			}
			for file, old := range before {
				want, changed := test.want[file]
				if !changed {
					want = old
				}
				if got, err := os.ReadFile(g.file(file)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v; want %q", file, got, err, want)
				}
			}
		})
	}
}

func TestSetFails(t *testing.T) {
	tests := map[string]*specs.LinuxResources{
		"no such controller": {Pids: &specs.LinuxPids{}},
		"swap alone":         {Memory: &specs.LinuxMemory{Swap: pointer[int64](1)}},
	}
	for name, set := range tests {
		t.Run(name, func(t *testing.T) {
			g := fake(t, nil)
			if err := g.Set(set); err == nil {
				t.Error("it succeeds")
			}
			if entries, err := os.ReadDir(string(g)); err != nil || len(entries) > 0 {
				t.Errorf("files were made: %v, %v", entries, err)
			}
		})
	}
}

func TestPIDs(t *testing.T) {
	g := fake(t, map[string]string{"cgroup.procs": "12\n7\n"})
	if got, err := g.PIDs(); err != nil || !slices.Equal(got, []int{12, 7}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Group(g.file("none")).PIDs(); err == nil {
		t.Error("a group that is gone has processes")
	}
}

func TestStats(t *testing.T) {
	s := fake(t, map[string]string{
		"cpu.stat":       "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 4\nthrottled_usec 99\n",
		"memory.current": "4096\n", "memory.max": "max\n", "memory.swap.current": "1\n", "memory.swap.max": "2\n",
		"memory.stat":  "anon 11\nfile 12\n",
		"pids.current": "3\n", "pids.max": "max\n",
		"io.stat":             "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n",
		"hugetlb.2MB.current": "2097152\n",
	}).Stats()
	if u := s.CpuStats.CpuUsage; u.TotalUsage != 30000 || u.UsageInUsermode != 20000 || u.UsageInKernelmode != 10000 {
		t.Errorf("CPU: %v", u)
	}
	if d := s.CpuStats.ThrottlingData; d.Periods != 5 || d.ThrottledPeriods != 4 || d.ThrottledTime != 0 {
		t.Errorf("throttling: %v", d)
	}
	m := s.MemoryStats
	if m.Usage.Usage != 4096 || m.Usage.Limit != math.MaxUint64 || m.SwapUsage.Limit != 2 || m.Stats["file"] != 12 {
		t.Errorf("memory: %v", m)
	}
	if p := s.PidsStats; p.Current != 3 || p.Limit != 0 {
		t.Errorf("pids: %v", p)
	}
	io := s.BlkioStats.IoServiceBytesRecursive
	if len(io) != 12 || io[0].Major != 8 || io[0].Minor != 16 || io[0].Op != "read" || io[0].Value != 1 ||
		io[5].Op != "dios" || io[5].Value != 6 {
		t.Errorf("io: %v", io)
	}
	if h := s.HugetlbStats["2MB"]; h.GetUsage() != 2097152 {
		t.Errorf("huge pages: %v", s.HugetlbStats)
	}
}

func TestStatsOfNothing(t *testing.T) {
	s := Group(t.TempDir()).Stats()
	if s.CpuStats.CpuUsage == nil || s.CpuStats.ThrottlingData == nil || s.PidsStats == nil || s.BlkioStats == nil ||
		s.MemoryStats.Usage == nil || s.MemoryStats.SwapUsage == nil || s.MemoryStats.KernelUsage == nil {
		t.Errorf("a part is missing: %v", s)
	}
}

func TestRemove(t *testing.T) {
	g := Group(filepath.Join(t.TempDir(), "group"))
	if err := os.MkdirAll(g.file("a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(string(g)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	}
}

func TestOOM(t *testing.T) {
	alive := map[string]string{"memory.events": "low 0\noom_kill 0\n", "cgroup.events": "populated 1\nfrozen 0\n"}
	tests := map[string]struct {
		change func(Group, *OOMWatch) error
		want   bool
	}{
		"killed": {func(g Group, _ *OOMWatch) error { return g.write("memory.events", "low 0\noom_kill 1\n") }, true},
		"empty":  {func(g Group, _ *OOMWatch) error { return g.write("cgroup.events", "populated 0\n") }, false},
		"closed": {func(_ Group, w *OOMWatch) error { return w.Close() }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := fake(t, alive)
			w, err := g.WatchOOM()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = w.Close() }()
			told := make(chan bool)
			go func() { told <- w.Wait() }()
			if err := test.change(g, w); err != nil {
				t.Fatal(err)
			}
			if got := <-told; got != test.want {
				t.Errorf("it tells %v, want %v", got, test.want)
			}
		})
	}
	if _, err := Group(t.TempDir()).WatchOOM(); err == nil {
		t.Error("a group that is gone is watched")
	}
}
