// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// FS is the directory at name, for functions that read an fs.FS. Links in it lead where they lead on the node.
func (t *Tree) FS(name string) fs.FS { return dirFS{t, name} }

type dirFS struct {
	tree *Tree
	dir  string
}

// Open implements fs.FS. A FIFO does not hold it up.
func (d dirFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := d.tree.open(path.Join(d.dir, name), unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return file{f, d.tree}, nil
}

// file is a file whose entries, if it is a directory, describe themselves as they are on the node: those of package os would look
// for their path in our own file system.
type file struct {
	*os.File
	tree *Tree
}

type entry struct {
	fs.DirEntry
	dir file
}

// Info implements fs.DirEntry.
func (e entry) Info() (fs.FileInfo, error) {
	return e.dir.tree.Lstat(path.Join(e.dir.Name(), e.Name()))
}

// ReadDir implements fs.ReadDirFile.
func (f file) ReadDir(n int) ([]fs.DirEntry, error) {
	entries, err := f.File.ReadDir(n)
	for i := range entries {
		entries[i] = entry{entries[i], f}
	}
	return entries, err
}

// Stat implements fs.StatFS.
func (d dirFS) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	return d.tree.Stat(path.Join(d.dir, name))
}
