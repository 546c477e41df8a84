// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

func shareDir(t *testing.T) (*Sandbox, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return New(Paths{Shared: dir}), dir
}

func TestCopyFileInChunks(t *testing.T) {
	s, dir := shareDir(t)
	file := filepath.Join(dir, "a", "b", "file.txt")
	req := &grpc.CopyFileRequest{Path: file, FileMode: unix.S_IFREG | 0o4751, DirMode: 0o750, Uid: 12, Gid: 34, FileSize: 6}
	send := func(offset int64, data string) {
		t.Helper()
		req.Offset, req.Data = offset, []byte(data)
		if err := s.CopyFile(req); err != nil {
			t.Fatal(err)
		}
	}
	send(0, "abc")
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is at its place: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "a", "b", "file.tmp")); err != nil {
		t.Error(err)
	}
	send(3, "def")
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o751 || owner.Uid != 12 || owner.Gid != 34 {
		t.Errorf("mode %v, owner %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "abcdef" {
		t.Errorf("%q, %v", text, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v; want the file alone", entries, err)
	}
	req.FileSize = 1
	send(0, "z")
	if text, err := os.ReadFile(file); err != nil || string(text) != "z" {
		t.Errorf("after another copy: %q, %v", text, err)
	}
}

func TestCopyFileKinds(t *testing.T) {
	s, dir := shareDir(t)
	copyFile := func(name string, mode uint32, data string) {
		t.Helper()
		req := &grpc.CopyFileRequest{
			Path: filepath.Join(dir, name), FileMode: mode, DirMode: 0o755, Data: []byte(data), FileSize: int64(len(data))}
		if err := s.CopyFile(req); err != nil {
			t.Fatal(err)
		}
	}
	copyFile("dir", unix.S_IFDIR|0o711, "")
	copyFile("dir/file", unix.S_IFREG|0o600, "text")
	copyFile("dir", unix.S_IFDIR|0o700, "") // stays as it is, but for its mode
	if info, err := os.Lstat(filepath.Join(dir, "dir")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "dir/file")); err != nil {
		t.Error(err)
	}
	copyFile("link", unix.S_IFLNK|0o777, "/etc/passwd")
	if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "/etc/passwd" {
		t.Errorf("%q, %v", target, err)
	}
	copyFile("link", unix.S_IFREG|0o644, "over it") // the link goes, not what it leads to
	if text, err := os.ReadFile(filepath.Join(dir, "link")); err != nil || string(text) != "over it" {
		t.Errorf("%q, %v", text, err)
	}
	copyFile("dir", unix.S_IFREG|0o644, "over it")
	copyFile("dir", unix.S_IFDIR|0o755, "")
	if info, err := os.Lstat(filepath.Join(dir, "dir")); err != nil || !info.IsDir() {
		t.Errorf("%v, %v; want a directory again", info, err)
	}
}

func TestCopyFileStaysInside(t *testing.T) {
	s, dir := shareDir(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		outside + "/file", dir + "/../outside/file", dir + "/link/file", dir + "/link/new/file", dir + "file", "file", "",
	} {
		req := &grpc.CopyFileRequest{Path: path, FileMode: unix.S_IFREG | 0o644, DirMode: 0o755, Data: []byte("x"), FileSize: 1}
		if err := s.CopyFile(req); err == nil {
			t.Errorf("%q was copied", path)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside are %v, %v", entries, err)
	}
}
