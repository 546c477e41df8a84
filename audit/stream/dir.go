// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/internal/flock"
)

// ErrLocked is wrapped by OpenWriter's error when another Writer, in this process or in another, has the stream.
var ErrLocked = errors.New("another writer has the audit stream")

// openDir opens the stream's directory, making what is missing of it and of the root above it. The two
// directories below the root are named after the pod's metadata: they are made and opened one by one
// relative to their parent, and are never followed if they are links (openat(2), O_NOFOLLOW).
func openDir(dir string) (*os.File, error) {
	dir = filepath.Clean(dir)
	pod := filepath.Dir(dir)
	root := filepath.Dir(pod)
	for _, name := range []string{filepath.Base(dir), filepath.Base(pod)} {
		if name == "." || name == ".." || name == string(filepath.Separator) {
			return nil, fmt.Errorf("%s does not end in <pod>/<container>", dir)
		}
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	for _, path := range []string{pod, dir} {
		below, err := openBelow(fd, path)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		fd = below
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// openLocked opens the stream's directory, making it if need be, and takes the stream. If retention has removed the directory meanwhile, it
// is made anew.
func openLocked(path string, wait time.Duration) (*os.File, error) {
	for {
		dir, err := openDir(path)
		if err != nil {
			return nil, err
		}
		if err := lock(dir, wait); err != nil {
			dir.Close()
			return nil, err
		}
		if isAt(dir, path) {
			return dir, nil
		}
		if err := Unlock(dir); err != nil {
			return nil, err
		}
	}
}

// openBelow opens, and makes if need be, the directory path, whose parent is open as parent.
func openBelow(parent int, path string) (int, error) {
	name := filepath.Base(path)
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: owner %d, mode %#o: it must belong to user %d and be writable by nobody else",
			path, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return fd, nil
}

// lock takes the stream.
func lock(dir *os.File, wait time.Duration) error {
	err := flock.Exclusive(dir, wait, 10*time.Millisecond)
	if errors.Is(err, flock.ErrHeld) {
		return fmt.Errorf("%s: %w", dir.Name(), ErrLocked)
	}
	return err
}

// openAt opens a file of the stream's directory, never through a link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}
