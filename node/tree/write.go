// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unfinished is the end of the names of files that are being written. A writer that was killed leaves one behind; Sweep
// removes it.
const unfinished = ".metsuke-unfinished"

func temporary(base string) string { return "." + base + unfinished }

// WriteFile puts a file in name's place, at once and for good: a reader finds the old content or the new, and after a crash of
// the node so does the next one. A file that was there keeps its mode and owner; another gets mode. A link in the file's place is
// replaced, not followed.
func (t *Tree) WriteFile(name string, data []byte, mode fs.FileMode) error {
	return t.Copy(name, bytes.NewReader(data), mode)
}

// Copy is WriteFile for what is read from somewhere, until its end.
func (t *Tree) Copy(name string, data io.Reader, mode fs.FileMode) error {
	return t.in(name, func(dir *os.Root, base string) error {
		uid, gid := -1, -1
		if was, err := dir.Lstat(base); err == nil && was.Mode().IsRegular() {
			mode = was.Mode().Perm()
			if st, ok := was.Sys().(*syscall.Stat_t); ok {
				uid, gid = int(st.Uid), int(st.Gid)
			}
		}
		temp := temporary(base)
		if err := dir.RemoveAll(temp); err != nil {
			return err
		}
		f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, data)
		err = errors.Join(err, f.Chown(uid, gid), f.Chmod(mode), f.Sync(), f.Close())
		if err == nil {
			err = dir.Rename(temp, base)
		}
		if err != nil {
			return errors.Join(err, dir.Remove(temp))
		}
		return flush(dir)
	})
}

// Symlink puts a link that says target in name's place, at once. A directory there is an error.
func (t *Tree) Symlink(target, name string) error {
	return t.in(name, func(dir *os.Root, base string) error {
		temp := temporary(base)
		if err := dir.RemoveAll(temp); err != nil {
			return err
		}
		if err := dir.Symlink(target, temp); err != nil {
			return err
		}
		if err := dir.Rename(temp, base); err != nil {
			return errors.Join(err, dir.Remove(temp))
		}
		return flush(dir)
	})
}

// Mkdir makes a directory with exactly that mode; its parent must be there.
func (t *Tree) Mkdir(name string, mode fs.FileMode) error {
	return t.in(name, func(dir *os.Root, base string) error {
		if err := dir.Mkdir(base, mode); err != nil {
			return err
		}
		if err := dir.Chmod(base, mode); err != nil { // whatever the umask
			return err
		}
		return flush(dir)
	})
}

// Rename moves a file or a directory, at once. Both names have to be on one file system.
func (t *Tree) Rename(from, to string) error {
	return t.in(from, func(source *os.Root, sourceBase string) error {
		return t.in(to, func(target *os.Root, targetBase string) error {
			s, err := source.Open(".")
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			d, err := target.Open(".")
			if err != nil {
				return err
			}
			defer func() { _ = d.Close() }()
			if err := unix.Renameat(int(s.Fd()), sourceBase, int(d.Fd()), targetBase); err != nil {
				return &fs.PathError{Op: "rename", Path: from, Err: err}
			}
			return errors.Join(s.Sync(), d.Sync())
		})
	})
}

// Remove removes a file, a link or an empty directory. What is not there is no error.
func (t *Tree) Remove(name string) error { return t.remove(name, (*os.Root).Remove) }

// RemoveAll removes name and what is below it; links in there are removed, not followed. What is not there is no error.
func (t *Tree) RemoveAll(name string) error { return t.remove(name, (*os.Root).RemoveAll) }

func (t *Tree) remove(name string, how func(*os.Root, string) error) error {
	err := t.in(name, func(dir *os.Root, base string) error {
		if err := how(dir, base); err != nil {
			return err
		}
		return flush(dir)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes what a writer that was killed has left in a directory.
func (t *Tree) Sweep(dir string) error {
	entries, err := t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), unfinished) {
			err = errors.Join(err, t.RemoveAll(path.Join(dir, e.Name())))
		}
	}
	return err
}

func flush(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
