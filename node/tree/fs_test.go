// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestFS(t *testing.T) {
	tree, dir, outside := node(t)
	write(t, dir+"/etc/file", "inside")
	link(t, "/etc/file", dir+"/etc/link")
	link(t, outside+"/file", dir+"/etc/out")
	fsys := tree.FS("/etc")
	for _, name := range []string{"file", "link"} {
		if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != "inside" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, name := range []string{"out", "../secret/file", "/file", ""} {
		if _, err := fs.ReadFile(fsys, name); err == nil {
			t.Errorf("%q was read", name)
		}
		if _, err := fs.Stat(fsys, name); err == nil {
			t.Errorf("%q is there", name)
		}
	}
	entries, err := fs.ReadDir(fsys, ".")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"file", "link", "out"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("entries %q, %v", names, err)
	}
	if err := unix.Mkfifo(dir+"/etc/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open("fifo") // which nobody writes to
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

// A directory without links out of it is an fs.FS in every respect.
func TestFSForm(t *testing.T) {
	tree, dir, _ := node(t)
	write(t, dir+"/etc/a", "1")
	if err := fstest.TestFS(tree.FS("/etc"), "a"); err != nil {
		t.Error(err)
	}
	if _, err := fs.Stat(tree.FS("/none"), "."); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
