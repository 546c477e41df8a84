// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func writeFile(t *testing.T, name string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTruncateTargets(t *testing.T) {
	dir := t.TempDir()
	source := writeFile(t, filepath.Join(dir, "source"))
	root, volume, outside := filepath.Join(dir, "root"), filepath.Join(dir, "volume"), filepath.Join(dir, "outside")
	kept := []string{
		source, writeFile(t, root+"/etc/other"), writeFile(t, root+"/tmp/hidden"), writeFile(t, root+"/data/hidden"),
		writeFile(t, outside), writeFile(t, root+"/dir/file"),
	}
	emptied := []string{writeFile(t, root+"/etc/hosts"), writeFile(t, volume+"/file")}
	if err := os.Symlink(outside, root+"/etc/link"); err != nil {
		t.Fatal(err)
	}
	bind := func(from, to string) specs.Mount { return specs.Mount{Type: "bind", Source: from, Destination: to} }
	oci := &specs.Spec{Root: &specs.Root{Path: root}, Mounts: []specs.Mount{
		bind(source, "/etc/hosts"), bind(source, "/etc/new"), bind(source, "/etc/link"),
		{Type: "tmpfs", Destination: "/tmp"}, bind(source, "/tmp/hidden"),
		bind(volume, "/data"), bind(source, "/data/file"), bind(source, "/data/hidden"),
		bind(root+"/etc", "/dir"), {Type: "proc", Source: "proc", Destination: "/dir/file"},
	}}
	if err := truncateTargets(oci); err != nil {
		t.Fatal(err)
	}
	for _, name := range kept {
		if info, err := os.Stat(name); err != nil || info.Size() != 4 {
			t.Errorf("%s was changed: %v, %v", name, info, err)
		}
	}
	for _, name := range emptied {
		if info, err := os.Stat(name); err != nil || info.Size() != 0 {
			t.Errorf("%s was not emptied: %v, %v", name, info, err)
		}
	}
	if _, err := os.Lstat(root + "/etc/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

// The first thread may be the one that is given up: what /proc/self shows is its.
func TestShareNamespaces(t *testing.T) {
	dir := t.TempDir()
	ipc, uts, err := shareNamespaces(dir, "the-guest")
	t.Cleanup(func() {
		for _, f := range []string{filepath.Join(dir, "ipc"), filepath.Join(dir, "uts")} {
			_ = unix.Unmount(f, unix.MNT_DETACH)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for file, own := range map[string]string{ipc: "/proc/thread-self/ns/ipc", uts: "/proc/thread-self/ns/uts"} {
		var a, b unix.Stat_t
		if err := unix.Stat(file, &a); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(own, &b); err != nil {
			t.Fatal(err)
		}
		if a.Dev != b.Dev || a.Ino == b.Ino {
			t.Errorf("%s is no namespace, or our own", file)
		}
	}
	if name, err := os.Hostname(); err != nil || name == "the-guest" {
		t.Errorf("this machine is called %q now, %v", name, err)
	}
}

func TestStorage(t *testing.T) {
	s, dir := New(Paths{}), t.TempDir()
	local := &grpc.Storage{Driver: "local", MountPoint: filepath.Join(dir, "local"), Options: []string{"mode=0750", "fsgid=77"}}
	memory := &grpc.Storage{
		Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: filepath.Join(dir, "shm"),
		Options: []string{"noexec", "size=65536"},
	}
	t.Cleanup(func() { _ = unix.Unmount(memory.MountPoint, unix.MNT_DETACH) })
	for range 2 { // containers share them
		if err := s.mountStorages([]*grpc.Storage{local, memory}); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(local.MountPoint, &st); err != nil || st.Mode != unix.S_IFDIR|unix.S_ISGID|0o750 || st.Gid != 77 {
		t.Errorf("local: mode %o, group %d, %v", st.Mode, st.Gid, err)
	}
	var volume unix.Statfs_t
	err := unix.Statfs(memory.MountPoint, &volume)
	if err != nil || volume.Type != unix.TMPFS_MAGIC || volume.Flags&unix.ST_NOEXEC == 0 || volume.Blocks*uint64(volume.Bsize) != 65536 {
		t.Errorf("ephemeral: %+v, %v", volume, err)
	}
	if err := unix.Unmount(memory.MountPoint, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(memory.MountPoint, 0); err == nil {
		t.Error("it was mounted twice")
	}
	if err := s.mountStorages([]*grpc.Storage{{Driver: "blk", MountPoint: filepath.Join(dir, "blk")}}); err == nil {
		t.Error("a storage that there is not was mounted")
	}
}
