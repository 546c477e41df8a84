// SPDX-License-Identifier: Apache-2.0

// Package stream keeps the audit stream of one container on disk: an append-only sequence of records in
// segments, numbered without gaps and chained by hash.
//
//	<root>/<namespace>_<pod>_<uid>/<container>/00000001.ndjson   segments, mode 0600; .ndjson.zst once retention has compressed it
//	                                          /folded            counters of what is not a record yet
//	                                          /manifest, /head   what is signed of it (package manifest), with a key
//	<root>/ledger                                                 which streams there are (package ledger), with a key
//	<root>/boot                                                   in which boot streams were closed that the node had left open
//
// One Writer at a time has a stream; it holds a lock on the container's directory. A restarted container,
// a restarted shim and the clean-up after a killed one continue the same stream.
//
// # What survives what
//
// A record is in the segment (one write(2)) before Append returns, so the death of the process at any
// moment loses nothing that was acknowledged; at most the record being written is torn, which the next
// OpenWriter cuts and reports. When the node dies, so does what is not on the disk. With Options.Synced Append waits for that, and nothing is
// lost that was acknowledged. Otherwise a Writer syncs what it has every Options.FlushInterval: the records of that time may be lost, and of
// the sync that was under way. The next OpenWriter knows by the kernel's boot id, and reports it.
//
// # What is signed
//
// With a key, a Writer signs every FlushInterval how far its stream is on the disk, and what it hands over to the next one. A record that is
// younger may have no signature over it yet. Package verify finds what was done to a stream since.
package stream

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentSuffix = ".ndjson"
	segmentDigits = 8
	foldedName    = "folded"

	// CompressedSuffix is what the name of a compressed segment has behind that of a plain one.
	CompressedSuffix = ".zst"
)

// Stream is one container's stream, as List finds it. The names are those of its directories: encoded as
// Dir encodes them.
type Stream struct {
	Path      string // directory of the segments
	Pod       string // <namespace>_<pod>_<uid>
	Container string
}

// Segment is one file of a stream. Package segment reads it.
type Segment struct {
	Number int // from 1
	Path   string
}

// Compressed tells whether retention has compressed the segment.
func (s Segment) Compressed() bool { return strings.HasSuffix(s.Path, CompressedSuffix) }

// List returns the streams under root, ordered by path. A root that does not exist is an error that
// wraps fs.ErrNotExist. Symbolic links are passed over, and what begins with a dot: no stream does.
func List(root string) ([]Stream, error) {
	pods, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list audit streams: %w", err)
	}
	var streams []Stream
	for _, pod := range pods {
		if !pod.IsDir() || strings.HasPrefix(pod.Name(), ".") {
			continue
		}
		containers, err := os.ReadDir(filepath.Join(root, pod.Name()))
		if errors.Is(err, fs.ErrNotExist) { // retention was faster
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list audit streams: %w", err)
		}
		for _, c := range containers {
			if c.IsDir() {
				path := filepath.Join(root, pod.Name(), c.Name())
				streams = append(streams, Stream{Path: path, Pod: pod.Name(), Container: c.Name()})
			}
		}
	}
	return streams, nil
}

// Segments returns the segments of the stream in dir in their order. Other files are passed over, and so is a compressed segment that is
// also there as it was: it is about to take that one's place.
func Segments(dir string) ([]Segment, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	defer f.Close()
	return segmentsOf(f)
}

func segmentsOf(dir *os.File) ([]Segment, error) {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var segments []Segment
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			segments = append(segments, Segment{Number: n, Path: filepath.Join(dir.Name(), name)})
		}
	}
	slices.SortFunc(segments, func(a, b Segment) int { return cmp.Or(a.Number-b.Number, strings.Compare(a.Path, b.Path)) })
	return slices.CompactFunc(segments, func(a, b Segment) bool { return a.Number == b.Number }), nil
}

// SegmentName is the name of a segment's file that is not compressed.
func SegmentName(n int) string { return segmentName(n) }

func segmentName(n int) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, n, segmentSuffix)
}

func segmentNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(strings.TrimSuffix(name, CompressedSuffix), segmentSuffix)
	if !ok || len(digits) != segmentDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), err == nil && n > 0
}
