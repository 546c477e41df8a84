// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/stream"
)

// cursor is how far one sink is with one stream.
type cursor struct {
	confirmed checkpoint.Mark
	next      checkpoint.Mark // with what is in the batch
	identity  *audit.Identity // of the last record; nil: none was read yet
	checked   bool            // the record at next was found to follow from the one before it
	damaged   damage          // since the last record
	end       stream.Position // of the stream, as it was known last
	drained   stream.Position // that end at which there was nothing more to read

	headDue  bool      // records came that no head which was sent tells of
	headSeen time.Time // when the head was last read
}

// damage is what was found where records should be.
type damage struct {
	bytes int64
	found bool
	told  bool // in a statement, for nothing was behind it
}

func newCursor(path string, from checkpoint.Mark) *cursor {
	from.Stream = path
	return &cursor{confirmed: from, next: from}
}

// confirm says that the sink has what was read.
func (c *cursor) confirm() { c.confirmed = c.next }

// forget goes back to what is confirmed.
func (c *cursor) forget() {
	if c.next != c.confirmed {
		c.next, c.checked = c.confirmed, false
	}
	c.damaged, c.drained = damage{}, stream.Position{}
}

// behind tells whether a stream may go on behind the cursor.
func (c *cursor) behind() bool { return c.end != c.drained && before(c.next.At, c.end) }

// isOther tells whether the stream with this id is another one, which was made in the place of the cursor's. One that is not signed has no id.
func (c *cursor) isOther(id string) bool { return c.next.ID != "" && id != "" && c.next.ID != id }

func before(a, b stream.Position) bool {
	return a.Segment < b.Segment || a.Segment == b.Segment && a.Offset < b.Offset
}

// source is what the cursors of one sink read with. It is for one goroutine.
type source struct {
	root    string
	reader  segment.Reader
	decoder record.Decoder
}

// read adds records of the stream to the batch, until so many bytes of it are read, the batch is full, or there are no more. It reports whether
// it has come to the end. The error is about the stream's directory.
func (s *source) read(c *cursor, b *batch, quantum int64) (ended bool, err error) {
	s.reader.Reset(s.dir(c), c.next.At)
	defer s.reader.Close()
	for used := int64(0); used < quantum && !b.full(); {
		line, err := s.reader.Next()
		var hurt *segment.DamageError
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case errors.As(err, &hurt) && isPassing(hurt.Err):
			return false, err
		case errors.As(err, &hurt):
			c.damage(b, hurt.Bytes)
			c.next.At = s.reader.Behind()
			continue
		case err != nil:
			return false, err
		}
		if s.reader.Segment().Compressed() {
			quantum = max(quantum, seekable.FrameBytes) // which is decompressed as a whole
		}
		if !b.fits(len(line)) {
			return false, nil // it is read again
		}
		used += int64(len(line))
		if again := s.take(c, b, line); again {
			s.reader.Reset(s.dir(c), c.next.At)
			continue
		}
		c.next.At = s.reader.Behind()
	}
	return false, nil
}

// isPassing tells whether an error is about what the process or the machine has none of left, and so not about a segment.
func isPassing(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

func (s *source) dir(c *cursor) string { return filepath.Join(s.root, c.next.Stream) }

// lookForCut goes back if the stream ends before the cursor: a power failure, or somebody, has cut it. What is known of the end may be older than what
// was read, so the file is asked.
func (s *source) lookForCut(c *cursor) {
	if !before(c.end, c.next.At) {
		return
	}
	segments, err := stream.Segments(s.dir(c))
	if err != nil || len(segments) == 0 {
		return
	}
	last := segments[len(segments)-1]
	if last.Number < c.next.At.Segment {
		c.next.At = stream.Position{Segment: 1}
		c.rewind()
		return
	}
	for _, one := range segments {
		info, err := os.Lstat(one.Path)
		if one.Number == c.next.At.Segment && err == nil && info.Size() < c.next.At.Offset && isPlain(one) {
			c.rewind()
		}
	}
}

// isPlain tells whether a segment's size is that of its records.
func isPlain(s stream.Segment) bool { return !strings.HasSuffix(s.Path, stream.CompressedSuffix) }

// take adds what a line holds to the batch. It reports whether the cursor was moved back instead.
func (s *source) take(c *cursor, b *batch, line []byte) (again bool) {
	r, err := s.decoder.Decode(line)
	if err != nil || !isChain(r.Chain) || !isInert(bytes.TrimSuffix(line, []byte("\n"))) {
		c.damage(b, int64(len(line)))
		return false
	}
	if !c.checked {
		if !c.follows(line) && c.next.At.Offset > 0 {
			c.rewind()
			return true
		}
		c.checked = true
	}
	if c.identity == nil || *c.identity != r.Identity {
		c.identity = clone(&r.Identity)
	}
	if expected := c.next.Seq + 1; r.Seq > expected || c.damaged.found && !c.damaged.told {
		g := gap{after: c.next.Seq, before: r.Seq, bytes: c.damaged.bytes, reason: Removed}
		if c.damaged.found {
			g.reason = Damaged
		}
		b.addGap(c.next.Stream, c.identity, r.Event.Time, g)
	}
	b.add(c.next.Stream, c.identity, r, line)
	c.next.Seq, c.next.Chain = r.Seq, strings.Clone(r.Chain)
	c.damaged, c.headDue = damage{}, true
	return false
}

// follows tells whether a line is the one behind the mark, or there is no mark to judge it by.
func (c *cursor) follows(line []byte) bool {
	if c.next.Chain == "" {
		return true
	}
	link := stream.Link{Seq: c.next.Seq, Chain: c.next.Chain}
	_, err := link.Follow(line)
	return err == nil
}

// rewind goes back to the beginning of the segment: what is there now is not what was shipped. What was is sent again, and its consumer tells it
// by its ids. Of a stream without an id it goes back to the first segment: it may be another stream.
func (c *cursor) rewind() {
	if c.next.ID == "" {
		c.next.At.Segment = 1
	}
	c.next.At.Offset, c.next.Chain = 0, ""
	c.checked, c.damaged, c.drained = false, damage{}, stream.Position{}
}

func (c *cursor) damage(b *batch, bytes int64) {
	if c.damaged.told {
		c.damaged = damage{}
	}
	c.damaged.bytes += bytes
	c.damaged.found = true
	b.damages++
}

func isChain(text string) bool {
	if len(text) != 64 {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func clone(id *audit.Identity) *audit.Identity {
	own := *id
	for _, s := range []*string{
		&own.Node, &own.Namespace, &own.Pod, &own.PodUID, &own.Container, &own.ContainerID, &own.Profile, &own.ProfileDigest,
	} {
		*s = strings.Clone(*s)
	}
	return &own
}
