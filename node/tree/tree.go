// SPDX-License-Identifier: Apache-2.0

// Package tree is the file system of a node as a process sees it that may not live in it: a DaemonSet has the node's root at /host.
//
// Every path is an absolute one of the node. Symbolic links, absolute ones and ".." included, mean what they mean on the node and
// cannot lead out of it: the kernel resolves them (openat2(2), RESOLVE_IN_ROOT, Linux 5.6).
package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxFile bounds what ReadFile reads, in bytes. Configuration files are small.
const MaxFile = 4 << 20

// Tree is the file system below one directory. Its methods block for the disk alone and are safe for concurrent use; errors
// wrap those of package fs and name the path as it is on the node.
type Tree struct {
	dir  string
	root *os.File
}

// Open opens the tree below dir, "/" for the node that the process lives in.
func Open(dir string) (*Tree, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("the node's root: %w", err)
	}
	if st, err := root.Stat(); err != nil || !st.IsDir() {
		_ = root.Close()
		return nil, fmt.Errorf("the node's root: %s is not a directory", dir)
	}
	return &Tree{dir: dir, root: root}, nil
}

// Close gives the tree up.
func (t *Tree) Close() error { return t.root.Close() }

// Dir is the directory that Open was given.
func (t *Tree) Dir() string { return t.dir }

// open opens a path, links followed, within the tree.
func (t *Tree) open(name string, flags uint64) (*os.File, error) {
	if !path.IsAbs(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is not an absolute path")}
	}
	relative := strings.TrimLeft(name, "/") // not cleaned: ".." after a link is for the kernel to resolve
	if relative == "" {
		relative = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(t.root.Fd()), relative, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // EAGAIN: something was renamed meanwhile
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// magic is a path of ours for what f has open, however it came to it.
func magic(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// in calls do with the directory that name is in, opened as a root of its own, and name's last part.
func (t *Tree) in(name string, do func(dir *os.Root, base string) error) error {
	slash := strings.LastIndexByte(name, '/')
	base := name[slash+1:]
	if base == "" || base == "." || base == ".." {
		return &fs.PathError{Op: "access", Path: name, Err: fs.ErrInvalid}
	}
	parent, err := t.open(name[:slash+1], unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	dir, err := os.OpenRoot(magic(parent))
	if err != nil {
		return named(name[:slash+1], err)
	}
	defer func() { _ = dir.Close() }()
	if err := do(dir, base); err != nil {
		return named(name, err)
	}
	return nil
}

// named puts the node's path into an error of package os, which knows the last part only.
func named(name string, err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return &fs.PathError{Op: e.Op, Path: name, Err: e.Err}
	}
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		return &fs.PathError{Op: e.Op, Path: name, Err: e.Err}
	}
	return &fs.PathError{Op: "access", Path: name, Err: err}
}

// Reach is a path of this process for what name leads to: for sockets, and for directories whose links are to be followed by the
// kernel. It holds until release is called, also where the tree is of another mount namespace (/proc/PID/root).
func (t *Tree) Reach(name string) (path string, release func(), err error) {
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return "", nil, err
	}
	return magic(f), func() { _ = f.Close() }, nil
}

// Stat describes what name leads to.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.Stat()
}

// Lstat describes name itself.
func (t *Tree) Lstat(name string) (info fs.FileInfo, err error) {
	err = t.in(name, func(dir *os.Root, base string) error {
		info, err = dir.Lstat(base)
		return err
	})
	return info, err
}

// ReadFile reads a regular file, links followed.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	f, err := t.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("is larger than %d bytes", MaxFile)
	}
	if err != nil {
		return nil, named(name, err)
	}
	return data, nil
}

func (t *Tree) openRegular(name string) (*os.File, error) {
	// O_NONBLOCK: a FIFO in the file's place must not hold us up.
	f, err := t.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is not a regular file")}
	}
	return f, nil
}

// Sum is the SHA-256 of a regular file of any size, in hexadecimal.
func (t *Tree) Sum(name string) (string, error) {
	f, err := t.openRegular(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", named(name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ReadDir lists a directory, sorted by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := t.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// Readlink is what the link at name says.
func (t *Tree) Readlink(name string) (target string, err error) {
	err = t.in(name, func(dir *os.Root, base string) error {
		target, err = dir.Readlink(base)
		return err
	})
	return target, err
}

// Follow is the path that name means in the end: name itself unless it is a link, whose last part need not exist.
func (t *Tree) Follow(name string) (string, error) {
	for range 40 { // MAXSYMLINKS of the kernel
		info, err := t.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		target, err := t.Readlink(name)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Dir(name) + "/" + target // not cleaned: ".." is relative to where the directory really is
		}
		name = target
	}
	return "", &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
}

// Glob is the files that match a pattern of package path in its last part, sorted; the directory is taken as it is.
func (t *Tree) Glob(pattern string) ([]string, error) {
	entries, err := t.ReadDir(path.Dir(pattern))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		ok, err := path.Match(path.Base(pattern), e.Name())
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if ok {
			found = append(found, path.Join(path.Dir(pattern), e.Name()))
		}
	}
	return found, nil
}
