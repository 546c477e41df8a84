// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
)

// clockSlack is how much a segment's mtime may be behind the time of its last record: the kernel stamps
// files with a coarse clock, and clocks are set.
const clockSlack = time.Minute

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

// startOf returns the number of the segment from which a stream has to be read, or -1 if it need not be.
// Segments that were last written before Since are passed over. For the last so many records, segments
// are tried from the newest back until they hold enough, so a long stream is not read whole for ten lines.
func (r *reading) startOf(s stream.Stream, last int) (int, error) {
	segments, err := stream.Segments(s.Path)
	if err != nil || len(segments) == 0 {
		return 0, err
	}
	if r.filter.Process.PID != 0 { // who descends from whom is told by all records
		return segments[0].Number, nil
	}
	needed := 0
	if r.options.Follow { // the last one may be written again
		needed = 1
	}
	for since := r.filter.Since; !since.IsZero() && len(segments) > needed; segments = segments[1:] {
		info, err := os.Lstat(segments[0].Path)
		if err != nil || !info.ModTime().Before(since.Add(-clockSlack)) {
			break
		}
	}
	if len(segments) == 0 {
		return -1, nil
	}
	if last < 0 {
		return segments[0].Number, nil
	}
	for i, n := len(segments)-1, 0; i > 0; i-- {
		found, err := r.count(s, segments[i].Number)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		if n += found; n >= last {
			return segments[i].Number, nil
		}
	}
	return segments[0].Number, nil
}

// count returns how many records of one segment the filter chooses.
func (r *reading) count(s stream.Stream, number int) (n int, err error) {
	reader, err := segment.OpenReader(s.Path, number)
	if err != nil {
		return 0, err
	}
	quiet := *r
	quiet.options.Problem, quiet.options.Missing = nil, nil // Read will say it
	quiet.options.Borrow = true
	src := newSource(&quiet, s, reader)
	src.last = number
	for src.next() {
		n++
	}
	src.reader.Close()
	return n, nil
}
