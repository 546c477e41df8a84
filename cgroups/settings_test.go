// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/cgroups/inside"
)

var everyLimit = []string{CPU, CPUWeight, CPUSet, Memory, MemoryHigh, Swap, Pids, Hugepages, IO}

func TestSettings(t *testing.T) {
	tests := []struct {
		name, in string
		names    []string
		want     string // FILE VALUE, lines
	}{
		{"nothing", `{}`, everyLimit, ""},
		{"only what is named", `{"pids":{"limit":9},"memory":{"limit":4096},"unified":{"memory.max":"5","cpu.max":"max"}}`, []string{Pids}, "pids.max 14\n"},
		{"pids without end", `{"pids":{"limit":-1}}`, everyLimit, "pids.max max\n"},
		{"pids zero is the least", `{"pids":{"limit":0}}`, everyLimit, "pids.max 6\n"},
		{"pids by file", `{"pids":{"limit":9},"unified":{"pids.max":"7"}}`, everyLimit, "pids.max 14\npids.max 12\n"},
		{"pids by file without end", `{"unified":{"pids.max":"max"}}`, everyLimit, "pids.max max\n"},
		{"cpu", `{"cpu":{"quota":5000,"shares":1024,"cpus":"0-1"}}`, everyLimit, "cpu.max 5000 100000\ncpu.weight 100\ncpuset.cpus 0-1\n"},
		{"cpu period alone", `{"cpu":{"period":50000}}`, everyLimit, "cpu.max max 50000\n"},
		{"memory and swap", `{"memory":{"limit":4096,"swap":5000}}`, everyLimit, "memory.max 4096\nmemory.swap.max 904\n"},
		{"no swap", `{"memory":{"limit":4096,"swap":4096}}`, everyLimit, "memory.max 4096\nmemory.swap.max 0\n"},
		{"unlimited", `{"memory":{"limit":-1,"swap":-1}}`, everyLimit, "memory.max max\nmemory.swap.max max\n"},
		{"the sum alone says nothing of swap", `{"memory":{"swap":4096}}`, everyLimit, ""},
		{"high", `{"unified":{"memory.high":"4096","memory.low":"1"}}`, everyLimit, "memory.high 4096\n"},
		{"hugepages", `{"hugepageLimits":[{"pageSize":"2MB","limit":0}],"unified":{"hugetlb.2MB.rsvd.max":"0"}}`, everyLimit, "hugetlb.2MB.max 0\nhugetlb.2MB.rsvd.max 0\n"},
		{"io", `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}`, everyLimit,
			"io.max 8:0 rbps=1000\nio.max 8:0 wiops=max\n"},
		{"io by file", `{"unified":{"io.max":"8:0 rbps=10 wbps=max\n8:16 riops=3"}}`, everyLimit, "io.max 8:0 rbps=10\nio.max 8:0 wbps=max\nio.max 8:16 riops=3\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, lines(Settings(decode(t, tt.in), tt.names, 5))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func lines(settings []inside.Setting) string {
	var b strings.Builder
	for _, s := range settings {
		b.WriteString(s.File + " " + s.Value + "\n")
	}
	return b.String()
}

func TestMerge(t *testing.T) {
	old := []inside.Setting{{File: "pids.max", Value: "5"}, {File: "memory.high", Value: "1"}, {File: "io.max", Value: "8:0 rbps=1"}, {File: "io.max", Value: "8:0 wbps=1"}}
	update := []inside.Setting{{File: "pids.max", Value: "4"}, {File: "io.max", Value: "8:0 wbps=2"}, {File: "cpu.weight", Value: "9"}}
	want := "pids.max 4\nmemory.high 1\nio.max 8:0 rbps=1\nio.max 8:0 wbps=2\ncpu.weight 9\n"
	if diff := cmp.Diff(want, lines(Merge(old, update))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if old[0].Value != "5" {
		t.Error("Merge changed its argument")
	}
}

// kernelFiles is a cgroup as the kernel would have it after the settings.
func kernelFiles(settings []inside.Setting) map[string]string {
	files := map[string]string{
		"cpu.max": "max 100000", "cpu.weight": "100", "cpuset.cpus": "", "memory.max": "max", "memory.high": "max",
		"memory.swap.max": "max", "pids.max": "max", "hugetlb.2MB.max": "max", "io.max": "",
	}
	rates := map[string]string{}
	for _, s := range settings {
		value := s.Value
		switch s.File {
		case "io.max":
			device, rate, _ := strings.Cut(value, " ")
			key, n, _ := strings.Cut(rate, "=")
			rates[device+" "+key] = n
			continue
		case "cpu.max":
			if !strings.Contains(value, " ") {
				value += " 100000"
			}
		default:
			if n, err := parseKernel(value); err == nil && n != noLimit {
				value = plain(n) // without the suffix
			}
		}
		files[s.File] = value
	}
	for key, n := range rates {
		device, key, _ := strings.Cut(key, " ")
		files["io.max"] += device + " " + key + "=" + n + "\n"
	}
	return files
}

// What a delegate would have put in force and what the settings do is the same, and shows as within the ceilings.
func TestSettingsAreWhatDelegatesDo(t *testing.T) {
	const tasks = 48
	cases := 0
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r, l := randomResources(rng), randomLimits(rng)
		if l.Memory != nil && *l.Memory >= unlimitedV1 {
			continue // the kernel shows it as none
		}
		if _, err := Clamp(r, l, V2); err != nil {
			continue
		}
		cases++
		files := kernelFiles(Settings(r, everyLimit, tasks))
		var values []inside.Value
		for _, name := range l.Files() {
			values = append(values, inside.Value{File: name, Text: strings.TrimSuffix(files[name], "\n")})
		}
		found, err := Reported(values, l)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(r)
		for _, m := range mismatches(l, WithoutTasks(found, tasks)) {
			t.Errorf("seed %d: %+v\nresources %s\nfiles %v", seed, m, text, files)
		}
		want := inForce(r, V2)
		for file, name := range map[string]string{"memory.max": "memory", "memory.high": "high", "memory.swap.max": "swap", "pids.max": "pids", "cpu.weight": "weight"} {
			got := kernelFloat(files[file])
			if name == "pids" {
				got -= tasks
			}
			none := func(n float64) bool { return n > 1<<62 } // the largest numbers are how some write it
			// What the OCI form leaves out, delegates leave as it is.
			if got != want[name] && !(none(got) && (none(want[name]) || name == "swap")) {
				t.Errorf("seed %d: %s has %v, a delegate would have put %v\nresources %s", seed, file, got, want[name], text)
			}
		}
		if t.Failed() {
			return
		}
	}
	if cases < 1000 {
		t.Errorf("only %d cases were tried", cases)
	}
}

func TestReported(t *testing.T) {
	l := Limits{CPU: ptr(int64(2000)), Pids: ptr(int64(9)), MemoryHigh: ptr(int64(4096)), Swap: ptr(int64(0)),
		Hugepages: map[string]int64{"2MB": 0}, IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(10))}}}
	names := []string{"cpu.max", "hugetlb.2MB.max", "io.max", "memory.high", "memory.swap.max", "pids.max"}
	if diff := cmp.Diff(names, l.Files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	long := strings.Repeat("1", maxReported+1)
	tests := []struct {
		name         string
		value        inside.Value
		key          string
		want, reason string // of the limit whose file it is
	}{
		{"number", inside.Value{File: "pids.max", Text: "57"}, "", "57", ""},
		{"none", inside.Value{File: "memory.high", Text: "max"}, "", "max", ""},
		{"several lines", inside.Value{File: "io.max", Text: "8:16 rbps=1\n8:0 rbps=10 wbps=max"}, "8:0", "rbps=10 wbps=max riops=max wiops=max", ""},
		{"not reported", inside.Value{File: "other", Text: "1"}, "", "", "pids.max was not reported"},
		{"problem", inside.Value{File: "pids.max", Problem: "file does not\nexist"}, "", "", "pids.max: file does not?exist"},
		{"long problem", inside.Value{File: "pids.max", Problem: long}, "", "", "pids.max: " + long[1:]},
		{"no number", inside.Value{File: "pids.max", Text: "many"}, "", "", `pids.max in / has "many": strconv.ParseUint: parsing "many": invalid syntax`},
		{"two lines", inside.Value{File: "cpu.max", Text: "1000\n100000"}, "", "", "cpu.max was reported with what it cannot have"},
		{"control", inside.Value{File: "cpu.max", Text: "\x1b[2J 100000"}, "", "", "cpu.max was reported with what it cannot have"},
		{"long", inside.Value{File: "io.max", Text: long}, "8:0", "", "io.max was reported with what it cannot have"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := Reported([]inside.Value{tt.value}, l)
			if err != nil || len(found) != len(names) {
				t.Fatalf("%+v, %v", found, err)
			}
			limit := limitOf(tt.value.File)
			if limit == "" {
				limit = Pids
			}
			want := Found{Resource: limit, Key: tt.key, Value: tt.want, Effective: tt.want, Reason: tt.reason}
			for _, f := range found {
				if f.Resource == limit {
					if diff := cmp.Diff(want, f); diff != "" {
						t.Errorf("(-want +got):\n%s", diff)
					}
				} else if f.Reason == "" {
					t.Errorf("%s is found without a report", f.Resource)
				}
			}
			if len(mismatches(l, found)) == 0 {
				t.Error("limits that were not reported are taken for enforced")
			}
		})
	}
}

// What was asked for beside the profile's limits has nobody to compare it, so that it failed is an error.
func TestReportedBeside(t *testing.T) {
	l := Limits{Pids: ptr(int64(9)), BestEffort: map[string]bool{Pids: true}}
	for file, want := range map[string]string{
		"memory.high": "memory.high: write refused", "hugetlb.2MB.max": "hugetlb.2MB.max: write refused", "memory.swap.max": "", "pids.max": "",
	} {
		_, err := Reported([]inside.Value{{File: file, Problem: "write refused"}}, l)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := Reported([]inside.Value{{File: "memory.high", Text: "max"}}, l); err != nil {
		t.Error(err)
	}
}

func TestWithoutTasks(t *testing.T) {
	found := WithoutTasks([]Found{
		{Resource: Pids, Value: "57", Effective: "max"}, {Resource: Pids, Value: "3", Effective: "3"}, {Resource: Pids, Reason: "gone"}, {Resource: Memory, Value: "57"},
	}, 48)
	want := []Found{{Resource: Pids, Value: "9", Effective: "max"}, {Resource: Pids, Value: "0", Effective: "0"}, {Resource: Pids, Reason: "gone"}, {Resource: Memory, Value: "57"}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever a guest reports, it ends in one Found a limit, of printable text.
func FuzzReported(f *testing.F) {
	f.Add("5 100000", "8:0 rbps=5", "")
	f.Add("max", "8:0 rbps=\x00\n", "gone\x1b")
	f.Fuzz(func(t *testing.T, line, lines, problem string) {
		l := Limits{CPU: ptr(int64(1)), CPUSet: "0", Pids: ptr(int64(1)), IO: []IOLimit{{Device: "8:0", ReadBPS: ptr(int64(1))}}}
		found, err := Reported([]inside.Value{
			{File: "cpu.max", Text: line}, {File: "cpuset.cpus", Text: line}, {File: "pids.max", Text: line, Problem: problem}, {File: "io.max", Text: lines},
		}, l)
		if err != nil || len(found) != 4 {
			t.Fatalf("%+v, %v", found, err)
		}
		mismatches(l, WithoutTasks(found, 48))
		for _, f := range found {
			if ascii(f.Value) != f.Value || (f.Value == "") == (f.Reason == "") && line != "" {
				t.Errorf("%+v", f)
			}
		}
	})
}
