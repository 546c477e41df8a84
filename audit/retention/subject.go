// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// temporary ends the name of a compressed segment that is not complete.
const temporary = ".tmp"

// block is what a file takes at least, as the budgets count.
const block = 4 << 10

func onDisk(size int64) int64 { return max((size+block-1)/block*block, block) }

// subject is one stream.
type subject struct {
	stream.Stream
	segments []part
	stale    []string // paths of files that an earlier round has left
	bytes    int64    // on the disk
	gone     bool
	told     *told // what is signed of it; nil: not read yet
}

// part is a segment that is there.
type part struct {
	stream.Segment
	size  int64 // of the file
	bytes int64 // on the disk
	mtime time.Time

	checked bool // it is what was signed
}

// check says whether the segment has so many bytes, with that SHA-256 if one is known.
func (p *part) check(size int64, sum string) error {
	file, err := segment.Open(p.Path)
	if err != nil {
		return fmt.Errorf("it is left as it is: %w", err)
	}
	defer file.Close()
	has, err := file.Size()
	if err != nil {
		return err
	}
	if has != size {
		return otherSize(p, has, size)
	}
	if sum == "" {
		return nil
	}
	got := sha256.New()
	if _, err := io.Copy(got, io.NewSectionReader(file, 0, size)); err != nil {
		return fmt.Errorf("it is left as it is: %s: %w", file.Name(), err)
	}
	if hex.EncodeToString(got.Sum(nil)) != sum {
		return changed(p)
	}
	return nil
}

// otherSize and changed say of a segment that it is evidence.
func otherSize(p *part, has, signed int64) error {
	return fmt.Errorf("%s is left as it is: it has %d bytes, and %d were signed; see metsuke audit verify", filepath.Base(p.Path), has, signed)
}

func changed(p *part) error {
	return fmt.Errorf("%s is left as it is: it is not what was signed; see metsuke audit verify", filepath.Base(p.Path))
}

func (s *subject) name() string { return s.Pod + "/" + s.Container }

// look lists what a stream has.
func look(s stream.Stream) (*subject, error) {
	found := &subject{Stream: s, bytes: block}
	segments, err := stream.Segments(s.Path)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]int, len(segments))
	for i, one := range segments {
		listed[filepath.Base(one.Path)] = i
		found.segments = append(found.segments, part{Segment: one})
	}
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("it is left as it is: %s is not a regular file", e.Name())
		}
		found.bytes += onDisk(info.Size())
		if i, ok := listed[e.Name()]; ok {
			p := &found.segments[i]
			p.size, p.bytes, p.mtime = info.Size(), onDisk(info.Size()), info.ModTime()
		} else if strings.HasSuffix(e.Name(), stream.CompressedSuffix+temporary) {
			found.stale = append(found.stale, filepath.Join(s.Path, e.Name()))
		}
	}
	return found, nil
}

// clear removes what an earlier round has left: files that are not complete. Segments that it had told of and not removed are beyond the
// limits still, and are told of again.
func (s *subject) clear() (err error) {
	for _, path := range s.stale {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// told is what is signed of a stream.
type told struct {
	signed bool
	id     string
	lines  map[int]*manifest.Complete // of segments, by number
	closed *manifest.Closing          // by the last writer; nil: it may be written
	at     time.Time                  // when
	line   uint64                     // number of the manifest's last line
	hash   string                     // and its SHA-256
}

// read reads the manifest, unless that was done. A line that does not hold is an error: what is damaged is evidence, and stays.
func (s *subject) read(keys signature.Ring) (*told, error) {
	if s.told != nil {
		return s.told, nil
	}
	t := &told{lines: map[int]*manifest.Complete{}}
	file, err := fsys.OpenRegular(filepath.Join(s.Path, manifest.Name))
	if errors.Is(err, fs.ErrNotExist) {
		s.told = t
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	t.signed = true
	r := journal.NewReader(file, manifest.Context, keys)
	for {
		var e manifest.Entry
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("it is left as it is: %s: %w", manifest.Name, err)
		}
		if err := e.Check(); err != nil || t.id != "" && t.id != e.ID {
			return nil, fmt.Errorf("it is left as it is: %s, line %d: %w", manifest.Name, e.Line, errors.Join(err, errors.New("not of this stream")))
		}
		t.take(&e)
		t.line, t.hash = r.Line(), r.Hash()
	}
	s.told = t
	return t, nil
}

func (t *told) take(e *manifest.Entry) {
	t.id, t.at = e.ID, e.Time
	switch {
	case e.Begin != nil:
		t.closed = nil
		for n, c := range t.lines { // lost by a power failure, and written again
			if c.Last > e.Begin.At.Seq {
				delete(t.lines, n)
			}
		}
	case e.Segment != nil:
		t.lines[e.Segment.Number] = e.Segment
	case e.Close != nil:
		t.closed = e.Close
	}
}

// complete returns the segments that stay as they are whatever the writer does: those before the last one that begins with a record which
// is on the disk, and before the place that the head has signed last. Recovery never reads them.
func (s *subject) complete(keys signature.Ring) ([]part, error) {
	head, err := s.head(keys)
	if head == nil || err != nil {
		return nil, err
	}
	end := len(s.segments) - 1
	for ; end > 0; end-- {
		holds, err := begins(s.segments[end].Path)
		if err != nil {
			return nil, err
		}
		if holds {
			break
		}
	}
	for end > 0 && s.segments[end-1].Number >= head.At.Segment {
		end--
	}
	return s.segments[:max(end, 0)], nil
}

// head is the newest head, unless there is none that holds.
func (s *subject) head(keys signature.Ring) (*manifest.Head, error) {
	file, err := fsys.OpenRegular(filepath.Join(s.Path, manifest.HeadName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	heads, errs := manifest.ReadHeads(file, keys) // which the writer may be writing
	// When the node goes down, recovery begins where the head says.
	if err := file.Sync(); err != nil {
		return nil, err
	}
	newest := manifest.Newest(heads)
	if newest == nil || errors.Join(errs[0], errs[1]) != nil || newest.ID != s.told.id {
		return nil, nil
	}
	return newest, nil
}

// begins tells whether a segment begins with a whole record, and brings that to the disk.
func begins(path string) (bool, error) {
	if strings.HasSuffix(path, stream.CompressedSuffix) {
		return true, nil // an earlier round has looked
	}
	file, err := fsys.OpenRegular(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	line, err := bufio.NewReader(io.LimitReader(file, audit.MaxRecord)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if _, err := (stream.Link{}).Follow(line); errors.Is(err, stream.ErrNoRecord) {
		return false, nil
	}
	return true, file.Sync()
}

// lastRecord is the last record of a stream that is not signed; nil if it has none, or that cannot be read.
func (s *subject) lastRecord() *record.Record {
	line, err := segment.Last(s.Path)
	if err != nil || line == nil {
		return nil
	}
	last, err := record.Parse(line)
	if err != nil {
		return nil
	}
	return last
}
