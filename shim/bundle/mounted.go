// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// privateMode are the permissions of [Private]: to be searched, not listed.
const privateMode = 0o711

// CheckMounted verifies that a container has what [MountPrivate] asks for: [Private] is the root of a tmpfs mounted
// there, read-only, mode 0711, with the two mount points in it and nothing else, and [Guest] is the helper, the file
// source of the host, mounted read-only. Where a symbolic link is on the way, it fails. root is the
// container's root as the host sees it, /proc/<pid>/root of its init process.
//
// It must pass between the delegate's Create and Start, while nothing of the image runs, and again before each exec: a
// workload that may mount could have mounted something over the helper since, and so could one whose init
// process has moved to a mount namespace of its own, for that is where the delegate starts an exec.
//
// The delegate looks the helper up once more, by name. So for a workload that can change mounts this narrows the race
// and does not end it. Changing them takes CAP_SYS_ADMIN, which every process can have in a user namespace that
// it makes: it is for the profile or the pod's seccomp profile to deny unshare(2) and clone(2) of namespaces, setns(2)
// and mount(2), as the baseline profile does.
//
// It blocks for as long as a file system that such a workload has mounted there does. openat2(2) and
// STATX_ATTR_MOUNT_ROOT, Linux 5.8.
func CheckMounted(root, source string) error {
	if err := checkMounted(root, source); err != nil {
		return fmt.Errorf("check the helper in %s: %w", root, err)
	}
	return nil
}

func checkMounted(root, source string) error {
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	dir, err := openat2(top, Private[1:], unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("%s must be a directory with a mount of Metsuke's, and no symbolic link in the image: %w", Private, err)
	}
	defer unix.Close(dir)
	if err := checkPrivate(dir); err != nil {
		return fmt.Errorf("%s is not as Metsuke had it mounted, so the image or the workload has put something in its place: %w", Private, err)
	}
	guest, err := openat2(dir, path.Base(Guest), 0)
	if err != nil {
		return fmt.Errorf("%s is not in the container: %w", Guest, err)
	}
	defer unix.Close(guest)
	var have, want unix.Stat_t
	if err := unix.Fstat(guest, &have); err != nil {
		return fmt.Errorf("%s: %w", Guest, err)
	}
	if err := unix.Stat(source, &want); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if have.Dev != want.Dev || have.Ino != want.Ino {
		return fmt.Errorf("%s in the container is another file than %s of the host: something covers it", Guest, source)
	}
	if _, err := readOnly(guest); err != nil {
		return fmt.Errorf("%s: %w", Guest, err)
	}
	return nil
}

// checkPrivate checks the directory that an O_PATH descriptor refers to.
func checkPrivate(dir int) error {
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
	if mode := st.Mode &^ unix.S_IFMT; mode != privateMode {
		return fmt.Errorf("its mode is %#o, not %#o", mode, privateMode)
	}
	list, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(list), Private)
	defer f.Close()
	names, err := f.Readdirnames(3) // bounded: one more than there may be
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{path.Base(Guest), path.Base(Socket)}) {
		return fmt.Errorf("it holds %q", names)
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
