// SPDX-License-Identifier: Apache-2.0

// Package segment reads audit streams: segments as their writer left them, and compressed ones (package seekable), which hold the same
// records at the same offsets. The writer is package stream, which knows nothing of compression: it is linked into each shim.
package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// File is a segment that is open for reading. Sizes and offsets are those of its records, in bytes, compressed or not. Not safe for
// concurrent use.
type File struct {
	file       *os.File
	compressed *seekable.Reader // nil: it is not
}

// Open opens a segment. If it was compressed since its path was found, that one is opened. What is not a regular file (a link, a pipe that
// would block) is refused, and so is a compressed segment without its seek table: the error wraps seekable.ErrForm then.
func Open(path string) (*File, error) {
	file, err := fsys.OpenRegular(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, stream.CompressedSuffix) {
		file, err = fsys.OpenRegular(path + stream.CompressedSuffix)
	}
	if err != nil {
		return nil, err
	}
	f := &File{file: file}
	if strings.HasSuffix(file.Name(), stream.CompressedSuffix) {
		info, err := file.Stat()
		if err == nil {
			f.compressed, err = seekable.NewReader(file, info.Size())
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
	}
	return f, nil
}

// Name is the path of the file that was opened.
func (f *File) Name() string { return f.file.Name() }

// Compressed tells whether the file is compressed.
func (f *File) Compressed() bool { return f.compressed != nil }

// Size is how many bytes the segment has now. Only one that is not compressed can grow.
func (f *File) Size() (int64, error) {
	if f.compressed != nil {
		return f.compressed.Size(), nil
	}
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, offset int64) (int, error) {
	if f.compressed != nil {
		return f.compressed.ReadAt(p, offset)
	}
	return f.file.ReadAt(p, offset)
}

// Check says whether a compressed file is as it was written, all of it. The error wraps seekable.ErrForm if it is not.
func (f *File) Check() error {
	if f.compressed == nil {
		return nil
	}
	return f.compressed.Check()
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
