// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(path("file"), []byte("content"), 0o600), os.Symlink("file", path("link")),
		unix.Mkfifo(path("pipe"), 0o600), os.Mkdir(path("directory"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	file, err := OpenRegular(path("file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := io.ReadAll(file); string(got) != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"link", "pipe", "directory"} {
		if file, err := OpenRegular(path(name)); err == nil {
			t.Errorf("a %s is opened", name)
			file.Close()
		}
	}
	if _, err := OpenRegular(path("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestSyncDir(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
