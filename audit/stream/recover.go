// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
)

// ErrDamaged is wrapped by OpenWriter's error for a stream whose end cannot be found. It needs a person:
// move the directory away and keep it, it is evidence.
var ErrDamaged = errors.New("the audit stream is damaged")

// Recovered says what OpenWriter found of an earlier writer that did not close. If it is not zero, the
// caller writes an event of kind loss.
type Recovered struct {
	Bytes  uint64 // cut from the end, because they were no whole record
	Folded uint64 // denials that were folded (Fold) and are in no record; settle them with AppendFolded
	// Missing is how many records had been signed for and are not there. What is signed was on the disk: somebody took them.
	Missing uint64
	// Outage says that the node went down while a writer had the stream, and of which time records may be missing. It is known of streams
	// that are signed.
	Outage Outage
}

// Outage is a time of which records may be missing.
type Outage struct {
	From  time.Time // of the last record that is there; zero if there is none
	Until time.Time // when the node was up again; zero: there was no outage
	// FlushInterval bounds the time before the node went down of which records may be missing. 0: none is missing that was acknowledged.
	FlushInterval time.Duration
}

// IsZero tells whether there is nothing to report.
func (r Recovered) IsZero() bool { return r == Recovered{} }

// tail is where a stream goes on.
type tail struct {
	segment *os.File // open for appending
	number  int
	size    int64
	seq     uint64
	chain   string
	at      time.Time // of the last record
	end     bool      // the last record is of kind end
	cut     uint64
	packed  *complete // the segment before, if the stream was closed behind it and it is compressed
}

// recoverTail opens the last segment, or makes the first one, and finds the last whole record. It reads
// the stream's end only. What follows that record is cut. After an outage blocks may be missing anywhere behind what was signed, which was on
// the disk: from there the records are followed.
func recoverTail(dir *os.File, signed *manifest.Point) (*tail, error) {
	segments, err := segmentsOf(dir)
	if err != nil {
		return nil, err
	}
	if signed != nil {
		if t, err := followTail(dir, segments, *signed); t != nil || err != nil {
			return t, err
		}
	}
	t := &tail{number: 1, chain: chainZero}
	if len(segments) == 0 {
		t.segment, err = openAt(dir, segmentName(1), segmentFlags|os.O_EXCL)
		return t, err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		if segments[i].Compressed() {
			if err := behindCompressed(dir, t, segments[i].Number); err != nil {
				if t.segment != nil {
					t.segment.Close()
				}
				return nil, err
			}
			return t, nil
		}
		file, err := openAt(dir, segmentName(segments[i].Number), os.O_RDWR|os.O_APPEND)
		if err != nil {
			return nil, err
		}
		last := i == len(segments)-1
		if last {
			t.segment, t.number = file, segments[i].Number
		}
		found, err := t.scan(file, last)
		if !last {
			file.Close()
		}
		if err == nil && found {
			return t, nil
		}
		if err == nil && !last && i == 0 {
			err = fmt.Errorf("%s: %w: no whole record in it", file.Name(), ErrDamaged)
		}
		if err != nil {
			t.segment.Close()
			return nil, err
		}
	}
	// One segment, and its first record was never completed.
	if t.number != 1 {
		t.segment.Close()
		return nil, fmt.Errorf("%s: %w: no whole record, and no earlier segment", t.segment.Name(), ErrDamaged)
	}
	return t, nil
}

// scan finds the last whole record of a segment; if it is the stream's last segment, it cuts what follows.
func (t *tail) scan(file *os.File, last bool) (found bool, err error) {
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	line, end, err := LastRecord(file, info.Size())
	if err != nil {
		return false, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if seq, chain, ok := whole(line); ok {
		t.seq, t.chain, t.end, found = seq, string(chain), isEnd(line), true
		_, t.at, _ = stamp(line)
	}
	if !last {
		return found, nil
	}
	if end < info.Size() {
		if err := file.Truncate(end); err != nil {
			return false, writeError("truncate", file.Name(), err)
		}
		t.cut = uint64(info.Size() - end)
	}
	t.size = end
	return found, nil
}

// LastRecord returns the last whole record of a segment and the offset behind it; nil and 0 if there is none.
func LastRecord(r io.ReaderAt, size int64) (line []byte, end int64, err error) {
	end = size
	for range maxSkips {
		if end, err = journal.LineStart(r, end); err != nil || end == 0 { // behind the last newline
			return nil, 0, err
		}
		start, err := journal.LineStart(r, end-1)
		if err != nil {
			return nil, 0, err
		}
		if end-start <= audit.MaxRecord {
			line := make([]byte, end-start)
			if _, err := r.ReadAt(line, start); err != nil {
				return nil, 0, err
			}
			if _, _, ok := whole(line); ok {
				return line, end, nil
			}
		}
		end = start
	}
	return nil, 0, fmt.Errorf("%w: no whole record in the last %d lines", ErrDamaged, maxSkips)
}
