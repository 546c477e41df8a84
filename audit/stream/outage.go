// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/manifest"
)

// bootID returns the id of the kernel's boot (random(4)), or what a test has in its place.
func bootID(test string) (string, error) {
	if test != "" {
		return test, nil
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// bootTime is when the node was up again (clock_gettime(2), CLOCK_BOOTTIME).
func bootTime() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}

// Report writes what OpenWriter found of an earlier writer that did not close, as records of kind loss: what had been signed for and is
// gone, and then the loss itself, for the reason that the caller knows, unless the node went down. detail says more of it, for people.
func (w *Writer) Report(reason, detail string) error {
	found := w.recovered
	if found.Missing > 0 {
		gone := &audit.Loss{Reason: audit.LossSigned, Count: found.Missing, Detail: "the stream was signed up to a later record than is there"}
		if err := w.Append(&audit.Event{Time: time.Now(), Kind: audit.KindLoss, Loss: gone}); err != nil {
			return fmt.Errorf("loss is not recorded: %w", err)
		}
	}
	loss := &audit.Loss{Reason: reason, Count: found.Folded, Bytes: found.Bytes, Detail: detail}
	if out := found.Outage; !out.Until.IsZero() {
		loss.Reason, loss.From, loss.Until, loss.FlushInterval = audit.LossNode, out.From, out.Until, out.FlushInterval
		loss.Detail = "synced: no record is missing whose call went on"
		if out.FlushInterval > 0 {
			loss.Detail = fmt.Sprintf("batched: records of %s before the node went down may be missing", out.FlushInterval)
		}
	}
	if err := w.AppendFolded(&audit.Event{Time: time.Now(), Kind: audit.KindLoss, Loss: loss}, found.Folded); err != nil {
		return fmt.Errorf("loss is not recorded: %w", err)
	}
	return nil
}

// followTail follows the records from a place on, and cuts the stream before the first one that is not whole, or does not follow: later
// segments are removed. It returns nil if the place is not there.
func followTail(dir *os.File, segments []Segment, from manifest.Point) (*tail, error) {
	t := &tail{number: from.Segment, size: from.Offset, seq: from.Seq, chain: from.Chain}
	for i, s := range segments {
		if s.Number < from.Segment {
			continue
		}
		if t.segment == nil && (s.Number != from.Segment || s.Compressed()) { // what is compressed was on the disk before
			return nil, nil
		}
		if t.segment != nil && (s.Number != t.number+1 || t.cut > 0) { // behind a gap
			return t, t.drop(dir, segments[i:])
		}
		file, err := openAt(dir, segmentName(s.Number), os.O_RDWR|os.O_APPEND)
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
		info, err := file.Stat()
		if err == nil && t.segment == nil && info.Size() < from.Offset {
			return nil, file.Close()
		}
		if err == nil && t.segment != nil {
			err = t.segment.Close()
			t.number, t.size = s.Number, 0
		}
		t.segment = file
		if err == nil && t.at.IsZero() {
			err = t.last(dir)
		}
		if err == nil {
			err = t.follow(info.Size())
		}
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
	}
	if t.segment == nil {
		return nil, nil
	}
	return t, nil
}

func (t *tail) close() error {
	if t.segment == nil {
		return nil
	}
	return t.segment.Close()
}

// last learns of the last record before t.size, which is in the segment or in the one before.
func (t *tail) last(dir *os.File) error {
	file, size := t.segment, t.size
	if size == 0 {
		before, err := openAt(dir, segmentName(t.number-1), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) { // there is none, or it was removed
			return nil
		}
		if err != nil {
			return err
		}
		defer before.Close()
		info, err := before.Stat()
		if err != nil {
			return err
		}
		file, size = before, info.Size()
	}
	line, _, err := LastRecord(file, size)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	_, t.at, _ = stamp(line)
	t.end = isEnd(line)
	return nil
}

// follow follows the records of the segment from t.size on, and cuts what is none.
func (t *tail) follow(size int64) error {
	link := Link{t.seq, t.chain}
	if t.seq == 0 {
		link = Link{}
	}
	in := bufio.NewReaderSize(io.NewSectionReader(t.segment, t.size, size-t.size), audit.MaxRecord)
	for t.size < size {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		next, wrong := link.Follow(line)
		if err != nil || wrong != nil {
			break
		}
		link = next
		t.seq, t.chain, t.end, t.size = next.Seq, next.Chain, isEnd(line), t.size+int64(len(line))
		_, t.at, _ = stamp(line)
	}
	if t.size == size {
		return nil
	}
	if err := t.segment.Truncate(t.size); err != nil {
		return writeError("truncate", t.segment.Name(), err)
	}
	t.cut += uint64(size - t.size)
	return nil
}

// drop removes segments that a gap lies before.
func (t *tail) drop(dir *os.File, segments []Segment) error {
	for _, s := range segments {
		if info, err := os.Lstat(s.Path); err == nil {
			t.cut += uint64(info.Size())
		}
		if err := unix.Unlinkat(int(dir.Fd()), segmentName(s.Number), 0); err != nil {
			return errors.Join(writeError("remove", s.Path, err), t.close())
		}
	}
	return nil
}
