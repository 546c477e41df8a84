// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"time"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
)

// describe says what the manifest does of a complete segment. What its writer knew counts, and not what the file holds by now: whoever
// changed it meanwhile is found by whoever verifies. So is a file that is gone or cannot be read; what it would tell is left out.
func describe(dir *os.File, c complete) *manifest.Complete {
	s := &manifest.Complete{Number: c.number, Last: c.last, Bytes: c.bytes, After: c.after, Before: chainBefore(dir, c.number)}
	file, err := openAt(dir, segmentName(c.number), os.O_RDONLY)
	if err != nil {
		return s
	}
	defer file.Close()
	if c.last == 0 {
		var last Link
		if last, s.Bytes = lastLink(file); last == (Link{}) {
			return s
		}
		s.Last, s.After = last.Seq, last.Chain
	}
	s.First, s.From = readStamp(file, 0)
	if last, err := journal.LineStart(file, s.Bytes-1); err == nil {
		_, s.To = readStamp(file, last)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(file, 0, s.Bytes)); err == nil {
		s.SHA256 = hex.EncodeToString(hash.Sum(nil))
	}
	return s
}

// chainBefore is the chain of the record before a segment; empty if that cannot be read.
func chainBefore(dir *os.File, number int) string {
	if number == 1 {
		return chainZero
	}
	file, err := openAt(dir, segmentName(number-1), os.O_RDONLY)
	if err != nil { // retention was there, which leaves alone what the manifest does not tell of
		return chainAfter(dir, number-1)
	}
	defer file.Close()
	last, _ := lastLink(file)
	return last.Chain
}

// lastLink returns the link of the last whole record of a segment, and the offset behind it; zero if there is none.
func lastLink(file *os.File) (Link, int64) {
	info, err := file.Stat()
	if err != nil {
		return Link{}, 0
	}
	line, end, err := LastRecord(file, info.Size())
	seq, chain, ok := whole(line)
	if err != nil || !ok {
		return Link{}, 0
	}
	return Link{seq, string(chain)}, end
}

// readStamp returns number and time of the record at an offset; zero for what is none.
func readStamp(file io.ReaderAt, offset int64) (seq uint64, at time.Time) {
	buf := make([]byte, len(lineHead)+timeLen+len(seqKey)+21)
	n, _ := file.ReadAt(buf, offset)
	seq, at, _ = stamp(buf[:n])
	return seq, at
}
