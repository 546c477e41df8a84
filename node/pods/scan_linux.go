// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
)

const (
	// maxScan is how many bytes of a stream are read for a container whose shim does not answer: its newest segments, and
	// the last one however large it is.
	maxScan = 64 << 20
	// clockSlack is how much a file's mtime may be behind the time of its last record.
	clockSlack = time.Minute
	// maxDamages is how many damaged places of a stream are named.
	maxDamages = 5
)

// scan counts the records of a stream from a time on; those of its newest part if since is zero. It takes constant memory.
// Damaged places are passed over; the error tells of them, and the counts are what could be read.
func scan(ctx context.Context, dir string, since time.Time) (*tally.Counts, error) {
	from, err := scanFrom(dir, since)
	if err != nil {
		return nil, err
	}
	r, err := segment.OpenReader(dir, from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var counted tally.Tally
	var damages []error
	damaged := 0
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		line, err := r.Next()
		var damage *segment.DamageError
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.As(err, &damage) {
			return nil, err
		}
		var rec *record.Record
		if err == nil {
			rec, err = record.Parse(line)
		}
		if err != nil {
			if damaged++; damaged <= maxDamages {
				damages = append(damages, err)
			}
			continue
		}
		if !lastTime(rec).Before(since) {
			counted.Add(&rec.Event, r.Position())
		}
	}
	if damaged > maxDamages {
		damages = append(damages, fmt.Errorf("%d more places are damaged", damaged-maxDamages))
	}
	counts := counted.Counts()
	return &counts, errors.Join(damages...)
}

// lastTime is when the last of what a record stands for happened.
func lastTime(r *record.Record) time.Time {
	if s := r.Event.Syscall; s != nil && s.Until.After(r.Event.Time) {
		return s.Until
	}
	return r.Event.Time
}

// scanFrom returns the number of the segment from which on a stream is to be read.
func scanFrom(dir string, since time.Time) (int, error) {
	segments, err := stream.Segments(dir)
	if err != nil || len(segments) == 0 {
		return 0, err
	}
	from := segments[len(segments)-1].Number
	left := int64(maxScan)
	for i := len(segments) - 1; i >= 0; i-- {
		info, err := os.Lstat(segments[i].Path)
		if errors.Is(err, fs.ErrNotExist) { // retention was faster
			break
		}
		if err != nil {
			return 0, err
		}
		if left -= info.Size(); since.IsZero() && left < 0 || !since.IsZero() && info.ModTime().Before(since.Add(-clockSlack)) {
			break
		}
		from = segments[i].Number
	}
	return from, nil
}
