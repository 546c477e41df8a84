// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOOMCounter(t *testing.T) {
	h := machines["v2"].host(t)
	counter, err := h.OOMCounter(7)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.root, counter.file)
	for _, test := range []struct {
		text string
		want uint64
	}{
		{"low 0\nhigh 5\nmax 9\noom 3\noom_kill 2\noom_group_kill 7\n", 2},
		{"oom 3\noom_kill 0\n", 0},
		{"oom 3\n", 0},
		{"oom_kill many\n", 0},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := counter.Kills(); got != test.want {
			t.Errorf("%q: %d kills", test.text, got)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := counter.Kills(); got != 0 {
		t.Errorf("the cgroup is gone: %d kills", got)
	}
	if got := (*OOMCounter)(nil).Kills(); got != 0 {
		t.Errorf("no counter: %d kills", got)
	}
	if _, err := h.OOMCounter(8); err == nil {
		t.Error("a process that is not there has a counter")
	}
	v1 := machines["v1"].host(t)
	counter, err = v1.OOMCounter(7)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(counter.file) != "memory.oom_control" {
		t.Errorf("v1 counts in %s", counter.file)
	}
	if err := os.WriteFile(filepath.Join(v1.root, counter.file), []byte("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := counter.Kills(); got != 4 {
		t.Errorf("v1: %d kills", got)
	}
}
