// SPDX-License-Identifier: Apache-2.0

// Package private looks after the directory in a container that is Metsuke's, as a process of the container's own sees it
// and as the host does through /proc/<pid>/root. Whoever mounts it says so in the container's specification (package
// shim/bundle); this package verifies what came of that, and makes it read-only where that has to wait.
package private

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Dir is the directory in the container that belongs to us. Guest and Socket are what is in it while the workload runs:
// the helper, and the supervisor's rendezvous socket. Cgroup is there only until [Name.DropCgroup]. In guest placement the
// directory's name is longer ([Name]); the names in it are the same.
const (
	Dir    = "/.metsuke"
	Guest  = Dir + guest
	Socket = Dir + socket
	Cgroup = Dir + cgroup

	guest  = "/guest"
	socket = "/sock"
	cgroup = "/cgroup"
)

// Name is the path of such a directory.
type Name string

// GuestPath is the path of the helper.
func (d Name) GuestPath() string { return string(d) + guest }

// SocketPath is the path of the supervisor's socket.
func (d Name) SocketPath() string { return string(d) + socket }

// CgroupPath is the path of the container's cgroup, as long as it is mounted there.
func (d Name) CgroupPath() string { return string(d) + cgroup }

// Check verifies that d under root is the root of a tmpfs mounted there, read-only, with these permissions, with
// the helper and the socket in it and nothing else, and that the helper is mounted read-only and the file at helper, whose
// path is the caller's own. Where a symbolic link is on the way, it fails.
//
// It blocks for as long as a file system that a workload has mounted there does. openat2(2) and
// STATX_ATTR_MOUNT_ROOT, Linux 5.8.
func (d Name) Check(root, helper string, mode uint16) error {
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer unix.Close(top)
	dir, err := openat2(top, string(d[1:]), unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("%s must be a directory with a mount of Metsuke's, and no symbolic link in the image: %w", d, err)
	}
	defer unix.Close(dir)
	if err := checkDir(dir, mode); err != nil {
		return fmt.Errorf("%s is not as Metsuke had it mounted, so the image or the workload has put something in its place: %w", d, err)
	}
	file, err := openat2(dir, guest[1:], 0)
	if err != nil {
		return fmt.Errorf("%s is not in the container: %w", d.GuestPath(), err)
	}
	defer unix.Close(file)
	var have, want unix.Stat_t
	if err := unix.Fstat(file, &have); err != nil {
		return fmt.Errorf("%s: %w", d.GuestPath(), err)
	}
	if err := unix.Stat(helper, &want); err != nil {
		return fmt.Errorf("%s: %w", helper, err)
	}
	if have.Dev != want.Dev || have.Ino != want.Ino {
		return fmt.Errorf("%s in the container is another file than %s: something covers it", d.GuestPath(), helper)
	}
	if _, err := readOnly(file); err != nil {
		return fmt.Errorf("%s: %w", d.GuestPath(), err)
	}
	return nil
}

// checkDir checks the directory that an O_PATH descriptor refers to.
func checkDir(dir int, mode uint16) error {
	// First of all: questions to a tmpfs never block.
	kind, err := readOnly(dir)
	if err != nil {
		return err
	}
	if kind != unix.TMPFS_MAGIC {
		return fmt.Errorf("its file system is of type %#x, no tmpfs", kind)
	}
	var st unix.Statx_t
	if err := unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_MODE, &st); err != nil {
		return err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return errors.New("it is no mount point")
	}
	if have := st.Mode &^ unix.S_IFMT; have != mode {
		return fmt.Errorf("its mode is %#o, not %#o", have, mode)
	}
	list, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(list), Dir)
	defer f.Close()
	names, err := f.Readdirnames(3) // bounded: one more than there may be
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{guest[1:], socket[1:]}) {
		return fmt.Errorf("it holds %q", names)
	}
	return nil
}

// Seal makes the caller's own directory read-only, for everybody in its mount namespace. Where delegates make the
// mount points in it themselves, it has to be mounted writable; no code of the workload's may have run by then. It takes
// CAP_SYS_ADMIN. [Name.Check] tells whether it is in force.
func (d Name) Seal() error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", string(d), "", flags, ""); err != nil {
		return fmt.Errorf("remount %s read-only: %w", d, err)
	}
	return nil
}

// DropCgroup unmounts what is at CgroupPath and removes that. Files that are open in it stay usable.
func (d Name) DropCgroup() error {
	if err := unix.Unmount(d.CgroupPath(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", d.CgroupPath(), err)
	}
	if err := unix.Rmdir(d.CgroupPath()); err != nil {
		return fmt.Errorf("remove %s: %w", d.CgroupPath(), err)
	}
	return nil
}

// readOnly fails if the mount that fd is on can be written to. It returns the type of the file system, a number of
// linux/magic.h.
func readOnly(fd int) (kind int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, err
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return 0, errors.New("it is not mounted read-only")
	}
	return int64(fs.Type), nil //nolint:unconvert // 32 bits wide elsewhere
}

func openat2(dir int, name string, flags uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}
