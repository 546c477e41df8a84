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
	if left := leaksNow(before); len(left) != 0 {
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

	left := leaksNow(before)
	for _, want := range []string{"sleep 1000", "mount " + mount, "socket " + socket, "cgroup " + group} {
		if !slices.ContainsFunc(left, func(leak string) bool { return strings.Contains(leak, want) }) {
			t.Errorf("leak %q is not found in %v", want, left)
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
	if left := leaksNow(before); len(left) != 0 {
		t.Errorf("leaks that are gone: %v", left)
	}
}

func leaksNow(before stand.Snapshot) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	return stand.Leaks(ctx, before)
}
