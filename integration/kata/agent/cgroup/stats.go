// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
)

// Stats reads the group's counters (RJ/cgroups/fs/mod.rs get_stats). All parts are filled, because the Go shim looks into
// them unasked. What cgroup v2 does not have is zero there too: the cache, the largest usage, failures, the kernel's memory,
// the throttled time (it looks for v1's name of it) and the usage per CPU.
func (g Group) Stats() *grpc.CgroupStats {
	cpu := counters(g.read("cpu.stat"))
	return &grpc.CgroupStats{
		CpuStats: &grpc.CpuStats{
			CpuUsage: &grpc.CpuUsage{
				TotalUsage:        cpu["usage_usec"] * 1000,
				UsageInUsermode:   cpu["user_usec"] * 1000,
				UsageInKernelmode: cpu["system_usec"] * 1000,
			},
			ThrottlingData: &grpc.ThrottlingData{Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"]},
		},
		MemoryStats: &grpc.MemoryStats{
			Usage:       &grpc.MemoryData{Usage: g.number("memory.current", 0), Limit: g.number("memory.max", math.MaxUint64)},
			SwapUsage:   &grpc.MemoryData{Usage: g.number("memory.swap.current", 0), Limit: g.number("memory.swap.max", math.MaxUint64)},
			KernelUsage: &grpc.MemoryData{},
			Stats:       counters(g.read("memory.stat")),
		},
		PidsStats:    &grpc.PidsStats{Current: g.number("pids.current", 0), Limit: g.number("pids.max", 0)},
		BlkioStats:   &grpc.BlkioStats{IoServiceBytesRecursive: blockIO(g.read("io.stat"))},
		HugetlbStats: g.hugePages(),
	}
}

// number is the value of a file with one number; unlimited is what "max" stands for, and a missing file is 0.
func (g Group) number(name string, unlimited uint64) uint64 {
	text := g.read(name)
	if text == "max" {
		return unlimited
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// counters reads lines of a name and a number; others are left out.
func counters(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out
}

// The counters of io.stat, and what the agent calls each operation (get_blkio_stats_v2).
var blockOperations = []struct{ name, op string }{
	{"rbytes", "read"}, {"wbytes", "write"}, {"rios", "rios"}, {"wios", "wios"}, {"dbytes", "dbytes"}, {"dios", "dios"},
}

func blockIO(text string) []*grpc.BlkioStatsEntry {
	var out []*grpc.BlkioStatsEntry
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		major, minor, ok := strings.Cut(fields[0], ":")
		if !ok {
			continue
		}
		values := counters(strings.ReplaceAll(strings.Join(fields[1:], "\n"), "=", " "))
		for _, o := range blockOperations {
			out = append(out, &grpc.BlkioStatsEntry{Major: decimal(major), Minor: decimal(minor), Op: o.op, Value: values[o.name]})
		}
	}
	return out
}

func decimal(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func (g Group) hugePages() map[string]*grpc.HugetlbStats {
	out := map[string]*grpc.HugetlbStats{}
	files, _ := filepath.Glob(g.file("hugetlb.*.current"))
	for _, f := range files {
		size := strings.Split(filepath.Base(f), ".")[1]
		out[size] = &grpc.HugetlbStats{Usage: g.number(filepath.Base(f), 0)}
	}
	return out
}
