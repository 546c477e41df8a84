// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAbsent(t *testing.T) {
	asked := Limits{
		Memory: new(int64(1 << 20)), CPUSet: "0-1", Pids: new(int64(5)),
		IO:         []IOLimit{{Device: "/dev/sda", ReadBPS: new(int64(7))}},
		Hugepages:  map[string]int64{"2MB": 3, "1GB": 4},
		BestEffort: map[string]bool{CPUSet: true, IO: true, Hugepages: true},
	}
	resolved := Limits{
		Memory: asked.Memory, Pids: asked.Pids,
		IO:         []IOLimit{{Device: "8:0", ReadBPS: asked.IO[0].ReadBPS}},
		Hugepages:  map[string]int64{"2MB": 3},
		BestEffort: asked.BestEffort,
	}
	for name, c := range map[string]struct {
		resolved Limits
		want     []string
	}{
		"nothing left out":     {asked, nil},
		"a set and a size":     {resolved, []string{"cpuset  0-1", "hugepages 1GB 4"}},
		"all that can be so":   {Limits{Memory: asked.Memory, Pids: asked.Pids}, []string{"cpuset  0-1", "hugepages 1GB 4", "hugepages 2MB 3", "io /dev/sda rbps 7"}},
		"with devices by name": {Limits{Memory: asked.Memory, Pids: asked.Pids, CPUSet: "0-1", Hugepages: asked.Hugepages, IO: resolved.IO}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Absent(asked, c.resolved) {
				got = append(got, c.Resource+" "+c.Key+" "+c.Asked)
				if c.OK || c.Found != "" || !c.BestEffort {
					t.Errorf("%+v", c)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
