// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"

	"metsuke.dev/metsuke/audit"
)

// A record is found again at the position that its writer told, and at the one that a reader tells, in each segment.
func TestPosition(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	var told []Position
	o := Options{SegmentBytes: 2000, Appended: func(_ *audit.Event, at Position) { told = append(told, at) }}
	w := open(t, root, o)
	appendAll(t, w, 12)
	if len(told) != 12 || told[0] != (Position{1, 0}) || told[11].Segment < 3 {
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
	dir := Dir(root, testID)
	var told []Position
	w := open(t, root, Options{SegmentBytes: 2000, Appended: func(_ *audit.Event, at Position) { told = append(told, at) }})
	appendAll(t, w, 12)
	next := func(at Position) (first Position, behind Position) {
		t.Helper()
		r, err := OpenReaderAt(dir, at)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return Position{}, r.Behind()
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
		following := Position{}
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
	if err := os.Remove(dir + "/" + segmentName(1)); err != nil {
		t.Fatal(err)
	}
	if first, _ := next(told[1]); first != (Position{2, 0}) {
		t.Errorf("without its segment: read at %v", first)
	}
}

func TestReadAtRefuses(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	appendAll(t, open(t, root, Options{}), 2)
	for _, test := range []struct {
		name string
		at   Position
		want error
	}{
		{"no such segment", Position{2, 0}, fs.ErrNotExist},
		{"inside a record", Position{1, 7}, ErrDamaged},
		{"behind the end", Position{1, 1 << 40}, ErrDamaged},
	} {
		if line, err := ReadAt(dir, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %q, %v; want %v", test.name, line, err, test.want)
		}
	}
	if err := os.Symlink("00000001.ndjson", dir+"/00000003.ndjson"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAt(dir, Position{3, 0}); err == nil {
		t.Error("a link was followed")
	}
}

// A record that could not be written is not told of.
func TestAppendedOnlyWhatIsWritten(t *testing.T) {
	n := 0
	w := open(t, t.TempDir(), Options{Appended: func(*audit.Event, Position) { n++ }})
	w.write = func(*os.File, []byte) (int, error) { return 0, errors.New("no") }
	if err := w.Append(call(1)); err == nil || n != 0 {
		t.Errorf("told of %d records; error %v", n, err)
	}
	w.write = (*os.File).Write
	if appendAll(t, w, 1); n != 1 {
		t.Errorf("told of %d records, want 1", n)
	}
}
