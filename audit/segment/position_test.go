// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

// A record is found again at the position that its writer told, and at the one that a reader tells, in each segment.
func TestPosition(t *testing.T) {
	root := t.TempDir()
	dir := stream.Dir(root, testID)
	var told []stream.Position
	o := stream.Options{SegmentBytes: 2000, Appended: func(_ *audit.Event, at stream.Position) { told = append(told, at) }}
	w := open(t, root, o)
	appendAll(t, w, 12)
	if len(told) != 12 || told[0] != (stream.Position{Segment: 1, Offset: 0}) || told[11].Segment < 3 {
		t.Fatalf("positions %v", told)
	}
	r, err := OpenReader(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, at := range told {
		want, err := r.Next()
		if err != nil || r.Position() != at {
			t.Fatalf("the reader is at %v, the writer was at %v; error %v", r.Position(), at, err)
		}
		if line, err := ReadAt(dir, at); err != nil || !bytes.Equal(line, want) {
			t.Errorf("at %v: %q, %v", at, line, err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last record: %v", err)
	}
}

// A reader goes on where another one stopped, in the middle of a segment and at its end, and behind segments that are gone.
func TestOpenReaderAt(t *testing.T) {
	root := t.TempDir()
	dir := stream.Dir(root, testID)
	var told []stream.Position
	w := open(t, root, stream.Options{SegmentBytes: 2000, Appended: func(_ *audit.Event, at stream.Position) { told = append(told, at) }})
	appendAll(t, w, 12)
	next := func(at stream.Position) (first stream.Position, behind stream.Position) {
		t.Helper()
		r, err := OpenReaderAt(dir, at)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return stream.Position{}, r.Behind()
		} else if err != nil {
			t.Fatal(err)
		}
		return r.Position(), r.Behind()
	}
	for i, at := range told {
		first, behind := next(at)
		if first != at {
			t.Errorf("record %d at %v: read at %v", i, at, first)
		}
		following := stream.Position{}
		if i+1 < len(told) {
			following = told[i+1]
		}
		if again, _ := next(behind); again != following {
			t.Errorf("behind record %d, at %v: read at %v, want %v", i, behind, again, following)
		}
	}
	_, end := next(told[11])
	if _, behind := next(end); behind != end {
		t.Errorf("nothing was read at %v, and the reader is behind %v", end, behind)
	}
	if err := os.Remove(dir + "/" + stream.SegmentName(1)); err != nil {
		t.Fatal(err)
	}
	if first, _ := next(told[1]); first != (stream.Position{Segment: 2, Offset: 0}) {
		t.Errorf("without its segment: read at %v", first)
	}
}

func TestReadAtRefuses(t *testing.T) {
	root := t.TempDir()
	dir := stream.Dir(root, testID)
	appendAll(t, open(t, root, stream.Options{}), 2)
	for _, test := range []struct {
		name string
		at   stream.Position
		want error
	}{
		{"no such segment", stream.Position{Segment: 2, Offset: 0}, fs.ErrNotExist},
		{"inside a record", stream.Position{Segment: 1, Offset: 7}, stream.ErrDamaged},
		{"behind the end", stream.Position{Segment: 1, Offset: 1 << 40}, stream.ErrDamaged},
	} {
		if line, err := ReadAt(dir, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %q, %v; want %v", test.name, line, err, test.want)
		}
	}
	if err := os.Symlink("00000001.ndjson", dir+"/00000003.ndjson"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAt(dir, stream.Position{Segment: 3, Offset: 0}); err == nil {
		t.Error("a link was followed")
	}
}
