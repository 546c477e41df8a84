// SPDX-License-Identifier: Apache-2.0

// Package guest makes a guest out of an initramfs and gives the port to the host: what the real agent does when it is process
// 1 (Kata Containers 4.1.0, src/agent/src/mount.rs and main.rs), and what the stand needs besides.
package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The tag of the host's directory of shared things, and where it is mounted. Not below the directory that the shim copies
// files into: it is read-only for the guest at its top.
const (
	sharedTag  = "kataShared"
	SharedRoot = "/run/virtiofs"
)

// Boot loads the modules in /modules, mounts what a guest has, and brings its network up.
// What a kernel may lack is only logged. Call it first, as process 1, before there are threads that matter: it changes the
// root directory.
func Boot() error {
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := makePivotable(); err != nil {
		return fmt.Errorf("make / pivotable: %w", err)
	}
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	for _, l := range links {
		if err := os.Symlink(l.target, l.name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := enableControllers("/sys/fs/cgroup"); err != nil {
		return err
	}
	shared := mount{source: sharedTag, target: SharedRoot, kind: "virtiofs"}
	if err := shared.mount(); err != nil {
		log.Printf("the host shares nothing: %v", err)
	}
	return upNetwork()
}

// loadModules loads the modules of a directory. One that cannot be loaded is logged: the kernel may have it built in, or the
// machine not have the device.
func loadModules(dir string) error {
	names, err := moduleOrder(dir)
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	for _, name := range names {
		if err := loadModule(filepath.Join(dir, name)); err != nil && !errors.Is(err, unix.EEXIST) {
			log.Printf("load %s: %v", name, err)
		}
	}
	return nil
}

// moduleOrder gives the names of a directory's modules in the order in which they are to be loaded: as the file "order" says,
// one name a line, or where there is none in the order of their names.
func moduleOrder(dir string) ([]string, error) {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err == nil {
		return strings.Fields(string(order)), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// makePivotable puts a mount over the initramfs, which pivot_root(2) refuses to leave.
func makePivotable() error {
	const root = "/newroot"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

// mount is one file system.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// What the agent mounts as process 1 (src/agent/src/mount.rs INIT_ROOTFS_MOUNTS, get_cgroup_mounts), and /tmp.
var mounts = []mount{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME, "nsdelegate"},
}

var links = []struct{ target, name string }{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

func (m mount) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.kind, m.target, err)
	}
	return nil
}

// enableControllers passes all controllers of the root cgroup on to those below it.
func enableControllers(root string) error {
	names, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	for _, name := range strings.Fields(string(names)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			log.Printf("enable the cgroup controller %s: %v", name, err)
		}
	}
	return nil
}

// Option is the value of an option of the kernel's command line, or "".
func Option(name string) (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("read the kernel's command line: %w", err)
	}
	return option(string(line), name), nil
}

// option finds the last name=value.
func option(line, name string) (value string) {
	for _, word := range strings.Fields(line) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value = v
		}
	}
	return value
}

// Stop ends the guest: QEMU with -no-reboot ends with it.
func Stop() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		log.Printf("reboot: %v", err)
	}
}
