// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a container must have to pass is tested where the check is, in guest/private.
func TestCheckMounted(t *testing.T) {
	root := t.TempDir()
	source := filepath.Join(root, "helper")
	if err := errors.Join(os.WriteFile(source, nil, 0o755), os.Mkdir(root+Private, 0o755)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		for _, step := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("tmpfs", root+Private, "tmpfs", 0, "mode=711") },
			func() error { return os.WriteFile(root+Guest, nil, 0o600) },
			func() error { return os.WriteFile(root+Socket, nil, 0o600) },
			func() error { return unix.Mount(source, root+Guest, "", unix.MS_BIND, "") },
			func() error { return unix.Mount("", root+Guest, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "") },
			func() error { return unix.Mount("", root+Private, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "") },
			func() error { return CheckMounted(root, source) },
		} {
			if err := step(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	if err := CheckMounted(root, source); err == nil || !strings.Contains(err.Error(), root) {
		t.Errorf("without the mounts: %v", err)
	}
}
