// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"metsuke.dev/metsuke/audit"
)

// Position is where a record of a stream begins.
type Position struct {
	Segment int   `json:"segment"` // number
	Offset  int64 `json:"offset"`  // in the segment, in bytes
}

// ReadAt returns the record at a position of the stream in dir, with its newline, without locking anything. The error
// wraps fs.ErrNotExist when the segment is gone, and ErrDamaged when no whole record begins there.
func ReadAt(dir string, at Position) ([]byte, error) {
	file, err := openSegment(filepath.Join(dir, segmentName(at.Segment)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	line, err := bufio.NewReader(io.NewSectionReader(file, at.Offset, audit.MaxRecord)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if _, _, ok := whole(line); !ok {
		return nil, fmt.Errorf("%s: %w: no whole record at offset %d", file.Name(), ErrDamaged, at.Offset)
	}
	return line, nil
}

// Size returns how many segments the stream in dir has, and their bytes together.
func Size(dir string) (segments int, bytes int64, err error) {
	list, err := Segments(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range list {
		if info, err := os.Lstat(s.Path); err == nil { // else retention was faster
			segments++
			bytes += info.Size()
		}
	}
	return segments, bytes, nil
}
