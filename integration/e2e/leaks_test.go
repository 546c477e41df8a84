// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// The check that every test ends with must see each kind of leak, and none where there is none.
func TestLeaksAreFound(t *testing.T) {
	before := stand.Snap()
	if left := leaksAfter(leakPatience, before); len(left) != 0 {
		t.Fatalf("leaks of nothing: %v", left)
	}

	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	mount := filepath.Join(stand.Dir, "leak")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", mount, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(mount, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	group := "/sys/fs/cgroup/leak"
	if !stand.Unified() {
		group = "/sys/fs/cgroup/memory/leak"
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}

	// A process that was started has its command line only when it has been loaded.
	missing := []string{"sleep 1000", "mount " + mount, "socket " + socket, "cgroup " + group}
	for end := time.Now().Add(leakPatience); len(missing) > 0; {
		left := leaksAfter(20*time.Millisecond, before)
		missing = slices.DeleteFunc(missing, func(want string) bool {
			return slices.ContainsFunc(left, func(leak string) bool { return strings.Contains(leak, want) })
		})
		if len(missing) > 0 && time.Now().After(end) {
			t.Errorf("leaks %q are not found in %v", missing, left)
			break
		}
	}

	_ = process.Process.Kill()
	_ = process.Wait()
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(mount, 0); err != nil {
		t.Error(err)
	}
	if err := os.Remove(group); err != nil {
		t.Error(err)
	}
	if left := leaksAfter(leakPatience, before); len(left) != 0 {
		t.Errorf("leaks that are gone: %v", left)
	}
}

// leaksAfter are the leaks that are there for so long.
func leaksAfter(patience time.Duration, before stand.Snapshot) []string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return stand.Leaks(ctx, before, nil)
}
