// SPDX-License-Identifier: Apache-2.0

package private

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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

func TestCheck(t *testing.T) {
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
	readonly := func(t *testing.T, at string) {
		t.Helper()
		if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
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
	// private mounts everything as a delegate does, but for making the tmpfs read-only.
	private := func(t *testing.T, at, mode string) {
		t.Helper()
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4k,nr_inodes=4,mode="+mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"guest", "sock"} {
			file(t, filepath.Join(at, name))
			bind(t, source, filepath.Join(at, name))
		}
		readonly(t, filepath.Join(at, "guest"))
	}
	tests := []struct {
		name, err string
		make      func(t *testing.T, root string)
	}{
		{"as runc does it", "", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			readonly(t, root+Dir)
		}},
		{"nothing there", "must be a directory", func(*testing.T, string) {}},
		{"a plain directory", "not mounted read-only", func(t *testing.T, root string) {
			file(t, root+Guest)
			file(t, root+Socket)
			bind(t, source, root+Guest)
			readonly(t, root+Guest)
		}},
		{"a directory of a read-only tmpfs that is the root", "no mount point", func(t *testing.T, root string) {
			if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			file(t, root+Guest)
			file(t, root+Socket)
			bind(t, source, root+Guest)
			if err := os.Chmod(root+Dir, 0o711); err != nil {
				t.Fatal(err)
			}
			readonly(t, root)
		}},
		{"a volume that is no tmpfs", "no tmpfs", func(t *testing.T, root string) {
			if err := os.MkdirAll(root+Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("proc", root+Dir, "proc", unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}},
		{"writable", "not mounted read-only", func(t *testing.T, root string) { private(t, root+Dir, "711") }},
		{"of another mode", "mode is 0755", func(t *testing.T, root string) {
			private(t, root+Dir, "755")
			readonly(t, root+Dir)
		}},
		{"with another file in it", `"else" "guest" "sock"`, func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			file(t, root+Dir+"/else")
			readonly(t, root+Dir)
		}},
		{"without the socket", `holds ["guest"]`, func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			if err := errors.Join(unix.Unmount(root+Socket, 0), os.Remove(root+Socket)); err != nil {
				t.Fatal(err)
			}
			readonly(t, root+Dir)
		}},
		{"an empty tmpfs over it", "it holds []", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			if err := unix.Mount("tmpfs", root+Dir, "tmpfs", unix.MS_RDONLY, "mode=711"); err != nil {
				t.Fatal(err)
			}
		}},
		{"the helper is not mounted", "another file", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			if err := unix.Unmount(root+Guest, 0); err != nil {
				t.Fatal(err)
			}
			readonly(t, root+Dir)
		}},
		{"the helper can be written to", "guest: it is not mounted read-only", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			if err := unix.Mount("", root+Guest, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			readonly(t, root+Dir)
		}},
		{"another file lies over the helper", "another file", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			bind(t, other, root+Guest)
			readonly(t, root+Dir)
		}},
		{"the image links the directory", "must be a directory", func(t *testing.T, root string) {
			private(t, root+"/vol", "711")
			readonly(t, root+"/vol")
			if err := os.Symlink("vol", root+Dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"the helper is a link", "not in the container", func(t *testing.T, root string) {
			private(t, root+Dir, "711")
			if err := errors.Join(unix.Unmount(root+Guest, 0), os.Remove(root+Guest), os.Symlink(source, root+Guest)); err != nil {
				t.Fatal(err)
			}
			readonly(t, root+Dir)
		}},
		{"the directory is a file", "must be a directory", func(t *testing.T, root string) { file(t, root+Dir) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "rootfs")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			inMountNamespace(t, func() {
				tt.make(t, root)
				err := Name(Dir).Check(root, source, 0o711)
				if tt.err == "" && err != nil {
					t.Error(err)
				}
				if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("got %v, want an error with %q", err, tt.err)
				}
			})
		})
	}
	if err := Name(Dir).Check(filepath.Join(dir, "none"), source, 0o711); err == nil {
		t.Error("there is no root")
	}
}

// TestSeal has the directory as a delegate leaves it to the resident: writable, with a cgroup mount in it.
func TestSeal(t *testing.T) {
	source := filepath.Join(t.TempDir(), "guest-0123")
	if err := os.WriteFile(source, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	inMountNamespace(t, func() {
		must := func(errs ...error) {
			t.Helper()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
		}
		root := t.TempDir()
		must(unix.Mount("tmpfs", root, "tmpfs", 0, ""), os.MkdirAll(root+Dir, 0o755))
		must(unix.Mount("tmpfs", root+Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
		must(os.WriteFile(root+Guest, nil, 0o600), os.WriteFile(root+Socket, nil, 0o666), os.Mkdir(root+Cgroup, 0o755))
		must(unix.Mount(source, root+Guest, "", unix.MS_BIND, ""), unix.Mount("", root+Guest, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		must(unix.Mount("tmpfs", root+Cgroup, "tmpfs", 0, ""), os.WriteFile(root+Cgroup+"/pids.max", nil, 0o644))
		open, err := os.OpenFile(root+Cgroup+"/pids.max", os.O_WRONLY, 0)
		must(err)
		defer open.Close()
		source, err := os.Open(source) // by name it is out of reach soon
		must(err)
		defer source.Close()
		helper := "/proc/self/fd/" + strconv.Itoa(int(source.Fd()))
		// The thread's alone, as the mount namespace is.
		must(unix.Mkdir(root+"/proc", 0o755), unix.Mount("/proc", root+"/proc", "", unix.MS_BIND|unix.MS_REC, ""), unix.Chroot(root), unix.Chdir("/"))

		if err := Name(Dir).Check("/", helper, 0o755); err == nil || !strings.Contains(err.Error(), "not mounted read-only") {
			t.Errorf("before it is sealed: %v", err)
		}
		must(Name(Dir).Seal())
		if err := Name(Dir).DropCgroup(); !errors.Is(err, unix.EROFS) {
			t.Errorf("DropCgroup after Seal: %v, want %v", err, unix.EROFS)
		}
		must(unix.Mount("", Dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""), os.Remove(Cgroup))
		must(os.Mkdir(Cgroup, 0o755), unix.Mount("tmpfs", Cgroup, "tmpfs", 0, ""), Name(Dir).DropCgroup(), Name(Dir).Seal())
		if err := Name(Dir).Check("/", helper, 0o755); err != nil {
			t.Error(err)
		}
		if _, err := open.WriteString("7"); err != nil {
			t.Errorf("a file that was open before: %v", err)
		}
		for name, err := range map[string]error{
			"make":   os.WriteFile(Dir+"/else", nil, 0o600),
			"remove": os.Remove(Socket),
			"rename": os.Rename(Dir, "/gone"),
			"again":  Name(Dir).DropCgroup(),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}
