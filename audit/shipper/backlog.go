// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"math"
	"os"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
)

// Backlog is what a sink has not confirmed.
type Backlog struct {
	Streams int       // that have such records
	Bytes   int64     // of them
	Oldest  time.Time // when the oldest one of them happened; zero if there is none, or it cannot be read
}

// Measure returns what is not confirmed by a checkpoint, of the streams under root. It opens only those that have something.
func Measure(root string, c *checkpoint.Checkpoint) (Backlog, error) {
	streams := newCatalogue(root)
	if err := streams.look(); err != nil {
		return Backlog{}, err
	}
	all, _, _ := streams.list(nil)
	return measure(root, all, func(path string) checkpoint.Mark { return c.Marks[path] }), nil
}

func measure(root string, all []extent, mark func(path string) checkpoint.Mark) (b Backlog) {
	for _, e := range all {
		m := mark(e.path)
		if !before(m.At, e.end) {
			continue
		}
		dir := filepath.Join(root, e.path)
		bytes := unconfirmed(dir, m.At)
		if bytes <= 0 {
			continue
		}
		b.Streams++
		b.Bytes += bytes
		if at := timeAt(dir, m.At); !at.IsZero() && (b.Oldest.IsZero() || at.Before(b.Oldest)) {
			b.Oldest = at
		}
	}
	return b
}

// unconfirmed is how many bytes lie behind a position.
func unconfirmed(dir string, at stream.Position) (bytes int64) {
	segments, err := stream.Segments(dir)
	if err != nil { // retention was faster
		return 0
	}
	for _, s := range segments {
		if s.Number < at.Segment {
			continue
		}
		size := sizeOf(s)
		if s.Number == at.Segment {
			size -= at.Offset
		}
		bytes += max(0, size)
	}
	return bytes
}

// sizeOf is how many bytes of records a segment has; 0 if that is not known.
func sizeOf(s stream.Segment) int64 {
	if !isPlain(s) {
		if size := contentOf(s.Path); size < math.MaxInt64 {
			return size
		}
		return 0
	}
	info, err := os.Lstat(s.Path)
	if err != nil { // retention was faster
		return 0
	}
	return info.Size()
}

// timeAt is when the record at a position happened, or the first one behind it; zero if that cannot be read.
func timeAt(dir string, at stream.Position) time.Time {
	var r segment.Reader
	r.Reset(dir, at)
	defer r.Close()
	line, err := r.Next()
	if err != nil {
		return time.Time{}
	}
	var d record.Decoder
	rec, err := d.Decode(line)
	if err != nil {
		return time.Time{}
	}
	return rec.Event.Time
}
