// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tree is a fake machine: files by path. The three below are cut from real ones: Debian 12 (v2), a v1 node
// without swap accounting, and a hybrid one with an empty unified tree.
type tree map[string]string

const online = "/sys/devices/system/cpu/online"

var machines = map[string]tree{
	"v2": {
		"/proc/self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n" +
			"34 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n" +
			"99 24 0:30 /kubepods /run/some\\040where rw - cgroup2 cgroup2 rw\n",
		"/proc/self/cgroup":                                              "0::/system.slice/containerd.service\n",
		"/sys/fs/cgroup/cgroup.controllers":                              "cpuset cpu io memory hugetlb pids rdma misc\n",
		"/sys/fs/cgroup/system.slice/containerd.service/memory.max":      "max\n",
		"/sys/fs/cgroup/system.slice/containerd.service/memory.swap.max": "max\n",
		"/proc/7/cgroup":                                                 "0::/kubepods/pod1/c1\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/cpu.max":                        "150000 100000\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/cpu.weight":                     "39\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/cpuset.cpus":                    "0-1\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/memory.max":                     "104857600\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/memory.high":                    "max\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/memory.swap.max":                "0\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/pids.max":                       "64\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/hugetlb.2MB.max":                "0\n",
		"/sys/fs/cgroup/kubepods/pod1/c1/io.max":                         "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=1048576 wbps=max riops=max wiops=120\n",
		"/sys/fs/cgroup/kubepods/pod1/cpu.max":                           "100000 100000\n",
		"/sys/fs/cgroup/kubepods/pod1/memory.max":                        "max\n",
		"/sys/fs/cgroup/kubepods/pod1/memory.high":                       "4096\n",
		"/sys/fs/cgroup/kubepods/pod1/memory.swap.max":                   "max\n",
		"/sys/fs/cgroup/kubepods/pod1/pids.max":                          "32\n",
		"/sys/fs/cgroup/kubepods/cpu.max":                                "max 100000\n",
		"/sys/fs/cgroup/kubepods/pids.max":                               "max\n",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":         "0\n",
		"/sys/dev/block/8:0/size":                                        "1\n",
		"/sys/dev/block/8:1/partition":                                   "1\n",
		online:                                                           "0-3\n",
	},
	"v1": {
		"/proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n" +
			"33 31 0:30 /docker/k /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
			"35 31 0:32 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n" +
			"36 31 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
			"not a line\n",
		"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":           "-1\n",
		"/sys/fs/cgroup/cpu,cpuacct/cpu.shares":                 "1024\n",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes":           "9223372036854771712\n",
		"/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device":   "",
		"/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device":  "",
		"/sys/fs/cgroup/blkio/blkio.throttle.read_iops_device":  "",
		"/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device": "",
		"/proc/7/cgroup": "9:name=systemd:/x\n5:memory:/docker/k/pod/c1\n4:pids:/pod/c1\n3:blkio:/pod/c1\n2:cpu,cpuacct:/pod/c1\n",
		"/sys/fs/cgroup/cpu,cpuacct/pod/c1/cpu.cfs_quota_us":           "50000\n",
		"/sys/fs/cgroup/cpu,cpuacct/pod/c1/cpu.cfs_period_us":          "100000\n",
		"/sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us":              "-1\n",
		"/sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us":             "100000\n",
		"/sys/fs/cgroup/cpu,cpuacct/pod/c1/cpu.shares":                 "1024\n",
		"/sys/fs/cgroup/memory/pod/c1/memory.limit_in_bytes":           "104857600\n",
		"/sys/fs/cgroup/memory/pod/c1/memory.memsw.limit_in_bytes":     "104861696\n",
		"/sys/fs/cgroup/memory/pod/memory.limit_in_bytes":              "9223372036854771712\n",
		"/sys/fs/cgroup/pids/pod/c1/pids.max":                          "max\n",
		"/sys/fs/cgroup/pids/pod/pids.max":                             "5\n",
		"/sys/fs/cgroup/blkio/pod/c1/blkio.throttle.read_bps_device":   "8:0 1048576\n8:16 5\n",
		"/sys/fs/cgroup/blkio/pod/c1/blkio.throttle.write_bps_device":  "",
		"/sys/fs/cgroup/blkio/pod/c1/blkio.throttle.read_iops_device":  "",
		"/sys/fs/cgroup/blkio/pod/c1/blkio.throttle.write_iops_device": "8:0 120\n",
		"/sys/dev/block/8:0/size":                                      "1\n",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":       "0\n",
		online: "0-1\n",
	},
	"hybrid": {
		"/proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
			"32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
			"33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes":       "9223372036854771712\n",
		"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "1\n",
		"/proc/7/cgroup": "5:memory:/c\n4:pids:/c\n0::/c\n",
		"/sys/fs/cgroup/memory/c/memory.limit_in_bytes":       "4096\n",
		"/sys/fs/cgroup/memory/c/memory.memsw.limit_in_bytes": "9223372036854771712\n",
		"/sys/fs/cgroup/pids/c/pids.max":                      "3\n",
	},
	"none": {"/proc/self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n"},
}

func (tr tree) detect(t *testing.T) (*Host, error) {
	t.Helper()
	root := t.TempDir()
	for path, text := range tr {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Detect(root)
}

func (tr tree) host(t *testing.T, but ...string) *Host {
	t.Helper()
	tr = maps.Clone(tr)
	for i := 0; i < len(but); i += 2 {
		tr[but[i]] = but[i+1]
		if but[i+1] == "" {
			delete(tr, but[i])
		}
	}
	h, err := tr.detect(t)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDetect(t *testing.T) {
	for name, want := range map[string]Version{"v2": V2, "v1": V1, "hybrid": V1} {
		if got := machines[name].host(t).Version; got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if h, err := machines["none"].detect(t); err == nil {
		t.Errorf("a machine without cgroups is %v", h.Version)
	}
	if _, err := Detect(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no procfs: %v", err)
	}
	if v, err := DetectVersion(""); err != nil || v != V1 && v != V2 {
		t.Errorf("this machine: %v, %v", v, err)
	}
}

var full = Limits{
	CPU: ptr(int64(2000)), CPUWeight: ptr(uint64(100)), CPUSet: "0-7", Memory: ptr(int64(200 * mi)), MemoryHigh: ptr(int64(100 * mi)), Swap: ptr(int64(0)), Pids: ptr(int64(64)),
	Hugepages: map[string]int64{"2MB": 0, "1GB": 0}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(mi)), WriteIOPS: ptr(int64(100))}},
}

func (l Limits) bestEffort(names ...string) Limits {
	l.BestEffort = map[string]bool{}
	for _, n := range names {
		l.BestEffort[n] = true
	}
	return l
}

func TestResolve(t *testing.T) {
	everything := []string{CPU, CPUWeight, CPUSet, Memory, MemoryHigh, Swap, Pids, Hugepages, IO}
	tests := []struct {
		name, machine string
		but           []string
		l             Limits
		lacks         []string
	}{
		{"all of v2", "v2", nil, full, nil},
		{"no io controller", "v2", []string{"/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory hugetlb pids"}, full, []string{IO}},
		{"no controllers", "v2", []string{"/sys/fs/cgroup/cgroup.controllers", "\n"}, full, everything},
		{"swap accounting off", "v2", []string{"/sys/fs/cgroup/system.slice/containerd.service/memory.swap.max", ""}, full, []string{Swap}},
		{"a partition", "v2", nil, Limits{IO: []IOLimit{{Device: "8:1", ReadBPS: ptr(int64(1))}}}, []string{IO}},
		{"no such device", "v2", nil, Limits{IO: []IOLimit{{Device: "/dev/none", ReadBPS: ptr(int64(1))}}}, []string{IO}},
		{"v1 without memsw, cpuset, hugetlb", "v1", nil, full, []string{CPUSet, MemoryHigh, Swap, Hugepages}},
		{"no bandwidth control", "v1", []string{"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", ""}, Limits{CPU: ptr(int64(1)), CPUWeight: ptr(uint64(1))}, []string{CPU}},
		{"hybrid", "hybrid", nil, Limits{Memory: full.Memory, Swap: full.Swap, Pids: full.Pids, CPU: full.CPU, IO: full.IO}, []string{CPU, IO}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := machines[tt.machine].host(t, tt.but...)
			_, _, err := h.Resolve(tt.l)
			var u *UnenforceableError
			if got := errors.As(err, &u); got != (len(tt.lacks) > 0) {
				t.Fatalf("got %v", err)
			}
			got, skipped, err := h.Resolve(tt.l.bestEffort(everything...))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range skipped {
				names = append(names, s.Resource)
				if got.Has(s.Resource) || got.BestEffort[s.Resource] {
					t.Errorf("%s is skipped and still there", s.Resource)
				}
			}
			slices.Sort(names)
			slices.Sort(tt.lacks)
			if diff := cmp.Diff(tt.lacks, names); diff != "" {
				t.Errorf("skipped (-want +got):\n%s", diff)
			}
			if u != nil && len(u.Items) != len(skipped) {
				t.Errorf("%d refused, %d skipped", len(u.Items), len(skipped))
			}
			if _, err := Clamp(decode(t, `{"memory":{"limit":4096}}`), got, h.Version); err != nil {
				t.Errorf("what was resolved does not clamp: %v", err)
			}
		})
	}

	h := machines["v2"].host(t)
	got, _, err := h.Resolve(full)
	if err != nil {
		t.Fatal(err)
	}
	if got.CPUSet != "0-3" {
		t.Errorf("CPUs that are not online stay: %s", got.CPUSet)
	}
	if diff := cmp.Diff(map[string]int64{"2MB": 0}, got.Hugepages); diff != "" {
		t.Errorf("page sizes that the kernel lacks stay: %s", diff)
	}
	if full.CPUSet != "0-7" || len(full.Hugepages) != 2 {
		t.Error("Resolve changed its argument")
	}
	if _, _, err := h.Resolve(Limits{CPUSet: "9"}); err == nil || !strings.Contains(err.Error(), "no CPU is in both") {
		t.Errorf("no CPU in common: %v", err)
	}
	if _, _, err := h.Resolve(Limits{Pids: ptr(int64(0))}); err == nil {
		t.Error("an invalid limit was resolved")
	}
	if s := kilobytes("64KB") + " " + kilobytes("2MB") + " " + kilobytes("16GB") + " " + kilobytes("1TB"); s != "64 2048 16777216 1073741824" {
		t.Errorf("got %s", s)
	}
}

// TestDeviceOfThisMachine looks a real device up by its path, if there is one.
func TestDeviceOfThisMachine(t *testing.T) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	h, err := Detect("")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range entries {
		want, err := os.ReadFile("/sys/block/" + e.Name() + "/dev")
		if _, statErr := os.Stat("/dev/" + e.Name()); err != nil || statErr != nil {
			continue
		}
		seen++
		if got, err := h.device("/dev/" + e.Name()); err != nil || got != strings.TrimSpace(string(want)) {
			t.Errorf("%s: got %s, %v; want %s", e.Name(), got, err, want)
		}
	}
	if seen == 0 {
		t.Skip("this machine has no block device under /dev")
	}
	if _, err := h.device("/dev/null"); err == nil {
		t.Error("/dev/null is a block device")
	}
}
