// SPDX-License-Identifier: Apache-2.0

// Package file ships records to a file, a line each, or to standard output, for whoever has an agent that reads it there.
package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/internal/fsys"
)

// File implements sink.Sink. Lines are confirmed when they are on the disk.
type File struct {
	config config.File
	file   *os.File // nil: it is to be opened
	size   int64
	out    *bufio.Writer
}

// New returns a sink for a file, which is made when the first record comes (mode 0600).
func New(c *config.File) *File {
	return &File{config: *c, out: bufio.NewWriterSize(nil, 64<<10)}
}

// Send implements sink.Sink. A file that has been renamed or removed meanwhile is made anew.
func (f *File) Send(_ context.Context, batch []sink.Record) error {
	if err := f.open(); err != nil {
		return err
	}
	if err := f.append(batch); err != nil {
		// A part of a line may be there: it is cut when the file is opened again.
		err = errors.Join(err, f.file.Close())
		f.file = nil
		return err
	}
	return f.rotate()
}

func (f *File) append(batch []sink.Record) error {
	f.out.Reset(f.file)
	for i := range batch {
		f.size += int64(len(batch[i].Line)) + 1
		if _, err := f.out.Write(batch[i].Line); err != nil {
			return err
		}
		if err := f.out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return errors.Join(f.out.Flush(), f.file.Sync())
}

// open opens the file that has the path now.
func (f *File) open() error {
	if f.file != nil {
		if f.isCurrent() {
			return nil
		}
		if err := f.file.Close(); err != nil {
			return err
		}
		f.file = nil
	}
	file, err := openRegular(f.config.Path)
	if err != nil {
		return err
	}
	if err := f.begin(file); err != nil {
		return errors.Join(err, file.Close())
	}
	f.file = file
	return nil
}

// openRegular opens a file, making it if it is not there.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// begin cuts a piece of a line, which a crash or a full disk has left.
func (f *File) begin(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if f.size, err = journal.LineStart(file, info.Size()); err != nil {
		return err
	}
	if f.size < info.Size() {
		if err := file.Truncate(f.size); err != nil {
			return err
		}
	}
	return fsys.SyncDir(filepath.Dir(f.config.Path))
}

func (f *File) isCurrent() bool {
	ours, err := f.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(f.config.Path)
	return err == nil && os.SameFile(ours, there)
}

// rotate renames a file that has become too large, and removes the oldest one.
func (f *File) rotate() error {
	if f.config.MaxSize == 0 || f.size < f.config.MaxSize {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	name := func(n int) string { return fmt.Sprintf("%s.%d", f.config.Path, n) }
	if f.config.Keep == 0 {
		return errors.Join(err, os.Remove(f.config.Path))
	}
	for n := f.config.Keep - 1; n >= 1; n-- {
		if e := os.Rename(name(n), name(n+1)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			return errors.Join(err, e)
		}
	}
	return errors.Join(err, os.Rename(f.config.Path, name(1)))
}

// Check implements sink.Sink: it makes the file, if it is not there. It cuts nothing: another process may be in the middle of a line.
func (f *File) Check(context.Context) error {
	file, err := openRegular(f.config.Path)
	if err != nil {
		return err
	}
	return file.Close()
}

// Close implements sink.Sink.
func (f *File) Close(context.Context) error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
