// SPDX-License-Identifier: Apache-2.0

package stream

import "os"

// Position is where a record of a stream begins.
type Position struct {
	Segment int   `json:"segment"` // number
	Offset  int64 `json:"offset"`  // in the segment, in bytes
}

// Size returns how many segments the stream in dir has, and how many bytes they have together, compressed ones as they are on the disk.
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
