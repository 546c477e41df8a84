// SPDX-License-Identifier: Apache-2.0

package inside

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fake is a Cgroup of plain files.
func fake(t *testing.T, texts map[string]string) (*Cgroup, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := openFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &Cgroup{files: files}, dir
}

func TestRead(t *testing.T) {
	c, _ := fake(t, map[string]string{
		"pids.max": "max\n", "io.max": "8:0 rbps=1\n8:16 rbps=2\n", "cpu.max": strings.Repeat("x", maxText), "memory.max": strings.Repeat("x", maxText+1),
		"hugetlb.2MB.max": "", "memory.events": "oom 0\n",
	})
	got := c.Read([]string{"pids.max", "io.max", "cpu.max", "memory.max", "hugetlb.2MB.max", "memory.events", "swap"})
	want := []Value{
		{"pids.max", "max", ""}, {"io.max", "8:0 rbps=1\n8:16 rbps=2", ""}, {"cpu.max", strings.Repeat("x", maxText), ""},
		{"memory.max", "", "longer than 4096 bytes"}, {"hugetlb.2MB.max", "", ""},
		{"memory.events", "", "file does not exist"}, {"swap", "", "file does not exist"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if v := c.Read([]string{"pids.max"}); v[0].Problem == "" {
		t.Errorf("after Close: %+v", v)
	}
}

func TestApplyTriesAll(t *testing.T) {
	c, dir := fake(t, map[string]string{"pids.max": "max\n", "memory.high": "max\n"})
	defer c.Close()
	memory := c.files["memory.high"]
	c.files["memory.high"] = 1 << 20 // no descriptor
	c.Apply([]Setting{{"nonesuch", "1"}, {"memory.high", "2"}, {"memory.high", "3"}, {"pids.max", "100\n"}})
	if text, err := os.ReadFile(filepath.Join(dir, "pids.max")); string(text) != "100\n" {
		t.Errorf("pids.max has %q, %v", text, err)
	}
	c.files["memory.high"] = memory
	// A problem outlives the next Apply of other files, and goes when its file is written.
	nonesuch := Value{"nonesuch", "", `write "1" to nonesuch: file does not exist`}
	for _, step := range []struct {
		apply []Setting
		want  []Value
	}{
		{[]Setting{{"pids.max", "9\n"}}, []Value{
			{"pids.max", "9\n0", ""},
			{"memory.high", "", "write \"2\" to memory.high: bad file descriptor\nwrite \"3\" to memory.high: bad file descriptor"}, nonesuch,
		}},
		{[]Setting{{"memory.high", "7"}}, []Value{{"pids.max", "9\n0", ""}, {"memory.high", "7ax", ""}, nonesuch}},
	} {
		c.Apply(step.apply)
		if got := c.Read([]string{"pids.max", "memory.high"}); !slices.Equal(got, step.want) {
			t.Errorf("after %v got %+v", step.apply, got)
		}
	}
}

func TestOpenWhatIsNoCgroup(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a cgroup2 file system") {
		t.Errorf("a plain directory: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

func TestWhatIsALimit(t *testing.T) {
	for name, want := range map[string]bool{
		"pids.max": true, "hugetlb.1GB.max": true, "hugetlb.2MB.rsvd.max": true, "cpuset.cpus": true,
		"pids.current": false, "cgroup.procs": false, "cgroup.max.depth": false, "memory.min": false, "rdma.max": false,
	} {
		if isLimit(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
