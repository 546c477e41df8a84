// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

// ReadAt returns the record at a position of the stream in dir, with its newline, without locking anything. The error
// wraps fs.ErrNotExist when the segment is gone, and stream.ErrDamaged when no whole record begins there.
func ReadAt(dir string, at stream.Position) ([]byte, error) {
	file, err := Open(filepath.Join(dir, stream.SegmentName(at.Segment)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	line, err := bufio.NewReader(io.NewSectionReader(file, at.Offset, audit.MaxRecord)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if _, err := (stream.Link{}).Follow(line); errors.Is(err, stream.ErrNoRecord) {
		return nil, fmt.Errorf("%s: %w: no whole record at offset %d", file.Name(), stream.ErrDamaged, at.Offset)
	}
	return line, nil
}

// Last returns the last whole record of the stream in dir, with its newline, without locking or changing
// anything. It is nil if there is none.
func Last(dir string) ([]byte, error) {
	segments, err := stream.Segments(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range slices.Backward(segments) {
		line, err := lastOf(s.Path)
		if err != nil || line != nil {
			return line, err
		}
	}
	return nil, nil
}

func lastOf(path string) ([]byte, error) {
	file, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) { // retention was faster
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	line, _, err := stream.LastRecord(file, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return line, nil
}

// End returns where the stream in dir ends: behind the last byte of its last segment. A stream without one ends where it begins.
func End(dir string) (stream.Position, error) {
	segments, err := stream.Segments(dir)
	if err != nil || len(segments) == 0 {
		return stream.Position{Segment: 1}, err
	}
	last := segments[len(segments)-1]
	file, err := Open(last.Path)
	if err != nil {
		return stream.Position{Segment: last.Number}, err
	}
	defer file.Close()
	size, err := file.Size()
	return stream.Position{Segment: last.Number, Offset: size}, err
}

// CheckChain reads the whole stream in dir and returns its number of records. The error says where the
// first record stands that is out of number, or whose chain does not follow from what is before it. It
// cannot tell whether records are missing at the end.
func CheckChain(dir string) (records uint64, err error) {
	r, err := OpenReader(dir, 0)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var link stream.Link
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			return link.Seq, nil
		}
		if err != nil {
			return link.Seq, err
		}
		next, err := link.Follow(line)
		if err != nil {
			return link.Seq, fmt.Errorf("%s: after record %d: record %d: %w", r.Segment().Path, link.Seq, next.Seq, err)
		}
		link = next
	}
}
