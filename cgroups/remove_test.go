// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestRemove(t *testing.T) {
	root := t.TempDir()
	mountinfo := "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"31 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
		"32 30 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n" +
		"33 30 0:29 / /elsewhere rw - cgroup cgroup rw,memory\n"
	mkdir := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("proc/self")
	mkdir("sys/fs/cgroup/pids/pod/full/inner")
	for _, dir := range []string{"sys/fs/cgroup/pids/pod/c", "sys/fs/cgroup/freezer/pod/c", "elsewhere/pod/c"} {
		mkdir(dir)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/self/mountinfo"), []byte(mountinfo), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	for path, want := range map[string]error{
		"/pod/c": nil, "/pod/absent": nil, "pod:x:y": nil, "/": nil, "/pod/../pod": nil,
		"/pod/full": syscall.ENOTEMPTY, // cgroupfs says EBUSY
	} {
		if err := h.Remove(ctx, path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	for dir, want := range map[string]bool{
		"sys/fs/cgroup/pids/pod/c": false, "sys/fs/cgroup/freezer/pod/c": false, "sys/fs/cgroup/pids/pod": true, "elsewhere/pod/c": true,
	} {
		if _, err := os.Stat(filepath.Join(root, dir)); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
