// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

// CopyFile makes a directory, a symbolic link or a chunk of a file below the shared directory and nowhere else (AG/rpc.rs
// do_copy_file). A file is written beside its place, under its name with the extension "tmp", and renamed once it has the
// size that it is to have; mode and owner are those of the request. What was at its place goes with the first chunk.
func (s *Sandbox) CopyFile(req *grpc.CopyFileRequest) error {
	name, ok := strings.CutPrefix(req.Path, s.paths.Shared+"/")
	if !ok {
		return fmt.Errorf("removing %q prefix from %s: prefix not found", s.paths.Shared, req.Path)
	}
	root, err := os.OpenRoot(s.paths.Shared)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	defer func() { _ = root.Close() }() // only a descriptor
	if err := copyInto(root, name, req); err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	return nil
}

func copyInto(root *os.Root, name string, req *grpc.CopyFileRequest) error {
	mode := os.FileMode(req.FileMode & 0o777)
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, os.FileMode(req.DirMode&0o777)); err != nil {
			return err
		}
	}
	kind := req.FileMode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return makeDir(root, name, mode, int(req.Uid), int(req.Gid))
	}
	if req.Offset == 0 {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	if kind == unix.S_IFLNK {
		// Its target may lead anywhere; whoever follows it must take care.
		if err := root.Symlink(string(req.Data), name); err != nil {
			return err
		}
		return root.Lchown(name, int(req.Uid), int(req.Gid))
	}
	temporary := strings.TrimSuffix(name, path.Ext(path.Base(name))) + ".tmp"
	complete, err := writeChunk(root, temporary, mode, req)
	if err != nil || !complete {
		return err
	}
	return root.Rename(temporary, name)
}

// makeDir makes a directory, or takes one that is there; a file at its place is removed.
func makeDir(root *os.Root, name string, mode os.FileMode, uid, gid int) error {
	if info, err := root.Lstat(name); err == nil && !info.IsDir() {
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	if err := root.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.Chmod(name, mode); err != nil { // the umask does not count
		return err
	}
	return root.Chown(name, uid, gid)
}

// writeChunk writes the data of a request at its offset, and tells whether the file is complete; then it has its mode and
// owner.
func writeChunk(root *os.Root, name string, mode os.FileMode, req *grpc.CopyFileRequest) (complete bool, err error) {
	flags := os.O_RDWR | os.O_CREATE
	if req.Offset == 0 {
		flags |= os.O_TRUNC
	}
	f, err := root.OpenFile(name, flags, mode)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(req.Data, req.Offset); err != nil {
		return false, err
	}
	info, err := f.Stat()
	if err != nil || info.Size() != req.FileSize {
		return false, err
	}
	return true, errors.Join(f.Chmod(mode), f.Chown(int(req.Uid), int(req.Gid)))
}
