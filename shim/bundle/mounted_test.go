// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inMountNamespace runs f on a thread of its own with a private mount namespace, which ends with it.
func inMountNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		var err error
		defer func() { done <- err }() // also when f calls t.Fatal
		err = unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
}

func TestCheckMounted(t *testing.T) {
	dir := t.TempDir()
	source, other := filepath.Join(dir, "guest-0123"), filepath.Join(dir, "evil")
	for _, f := range []string{source, other} {
		if err := os.WriteFile(f, []byte(f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(t *testing.T, from, to string) {
		t.Helper()
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	file := func(t *testing.T, path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, err string
		make      func(t *testing.T, root string)
	}{
		{"as runc does it", "", func(t *testing.T, root string) {
			file(t, root+Guest)
			bind(t, source, root+Guest)
		}},
		{"nothing there", "plain directory", func(*testing.T, string) {}},
		{"not mounted", "another file", func(t *testing.T, root string) { file(t, root+Guest) }},
		{"the image links the directory", "plain directory", func(t *testing.T, root string) {
			file(t, root+"/vol/guest")
			bind(t, source, root+"/vol/guest")
			if err := os.Symlink("vol", root+Private); err != nil {
				t.Fatal(err)
			}
		}},
		{"the image links the file", "not in the container", func(t *testing.T, root string) {
			file(t, root+"/.metsuke/x")
			bind(t, source, root+"/.metsuke/x")
			if err := os.Symlink("x", root+Guest); err != nil {
				t.Fatal(err)
			}
		}},
		{"a volume lies under the helper", "plain directory", func(t *testing.T, root string) {
			volume := filepath.Join(filepath.Dir(root), "volume")
			file(t, volume+"/guest")
			if err := os.Mkdir(root+Private, 0o755); err != nil {
				t.Fatal(err)
			}
			bind(t, volume, root+Private)
			bind(t, source, root+Guest)
		}},
		{"another file lies over the helper", "another file", func(t *testing.T, root string) {
			file(t, root+Guest)
			bind(t, source, root+Guest)
			bind(t, other, root+Guest)
		}},
		{"the directory is a file", "plain directory", func(t *testing.T, root string) { file(t, root+Private) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "rootfs")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			inMountNamespace(t, func() {
				tt.make(t, root)
				err := CheckMounted(root, source)
				if tt.err == "" && err != nil {
					t.Error(err)
				}
				if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("got %v, want an error with %q", err, tt.err)
				}
			})
		})
	}
	if err := CheckMounted(filepath.Join(dir, "none"), source); err == nil {
		t.Error("there is no root")
	}
}
