// SPDX-License-Identifier: Apache-2.0

// Package initrd writes the archive from which a virtual machine of the tests boots: an init, what it needs to mount its
// real root, and the kernel modules for that. It uses the standard library only.
package initrd

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A Writer makes a cpio archive in the "newc" form, as the kernel unpacks it
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error stays; Close tells it.
type Writer struct {
	w     io.Writer
	inode int
	dirs  map[string]bool
	err   error
}

// NewWriter writes to w, which the caller closes after Close.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, dirs: map[string]bool{}} }

// Dir adds a directory, and those above it, unless they are there.
func (w *Writer) Dir(name string) {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" || w.dirs[name] {
		return
	}
	w.Dir(path.Dir(name))
	w.dirs[name] = true
	w.entry(name, 0o040755, nil)
}

// File adds a regular file, and the directories above it. The name is without a leading slash.
func (w *Writer) File(name string, content []byte, mode fs.FileMode) {
	w.Dir(path.Dir(name))
	w.entry(name, 0o100000|uint32(mode.Perm()), content)
}

// Copy adds a file of this machine.
func (w *Writer) Copy(name, from string, mode fs.FileMode) {
	content, err := os.ReadFile(from)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.File(name, content, mode)
}

// Close ends the archive.
func (w *Writer) Close() error {
	w.entry("TRAILER!!!", 0, nil)
	return w.err
}

// entry writes a header of 14 numbers, the name with its zero, and the content, each padded to four bytes.
func (w *Writer) entry(name string, mode uint32, content []byte) {
	if w.err != nil {
		return
	}
	w.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		w.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0) + name + "\x00"
	for _, part := range [][]byte{[]byte(header), content} {
		padded := append(part, make([]byte, -len(part)&3)...)
		if _, w.err = w.w.Write(padded); w.err != nil {
			return
		}
	}
}
