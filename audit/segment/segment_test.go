// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/stream"
)

// compress puts a compressed segment in the place of a plain one, as retention does.
func compress(t testing.TB, path string) {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path+stream.CompressedSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = seekable.Compress(to, from)
	if err := errors.Join(err, to.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
}

// TestCompressed: whatever of a stream is compressed, and whenever, it reads as before.
func TestCompressed(t *testing.T) {
	root := t.TempDir()
	dir := stream.Dir(root, testID)
	w := open(t, root, stream.Options{SegmentBytes: 4000})
	appendAll(t, w, 40)
	all, _ := readAll(t, openReader(t, dir, 0))
	segments, err := stream.Segments(dir)
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	half := openReader(t, dir, 0)
	var read []string
	for len(read) < 3 {
		line, err := half.Next()
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, string(line))
	}
	behind := half.Behind()
	var places []stream.Position
	for r := openReader(t, dir, 0); ; {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		}
		places = append(places, r.Position())
	}
	for _, s := range segments[:len(segments)-1] {
		compress(t, s.Path)
	}
	equal := func(what string, got []string) {
		t.Helper()
		if strings.Join(got, "") != strings.Join(all, "") {
			t.Errorf("%s: %d lines, want %d", what, len(got), len(all))
		}
	}
	rest, damage := readAll(t, half)
	equal("a reader that was there before", append(read, rest...))
	later, err := OpenReaderAt(dir, behind)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	rest, more := readAll(t, later)
	equal("a reader that goes on there", append(read[:3:3], rest...))
	lines, most := readAll(t, openReader(t, dir, 0))
	equal("another one", lines)
	if n := len(damage) + len(more) + len(most); n > 0 {
		t.Errorf("%d damages", n)
	}
	for i, at := range places {
		if line, err := ReadAt(dir, at); err != nil || string(line) != all[i] {
			t.Errorf("record at %v: %q, %v", at, line, err)
		}
	}
	if n, err := CheckChain(dir); n != uint64(len(all)) || err != nil {
		t.Errorf("the chain of %d records: %v", n, err)
	}
	compress(t, segments[len(segments)-1].Path)
	end, err := End(dir)
	if err != nil || end != later.Behind() {
		t.Errorf("the end is %v, %v; want %v", end, err, later.Behind())
	}
	if line, err := Last(dir); err != nil || string(line) != all[len(all)-1] {
		t.Errorf("the last record is %q, %v", line, err)
	}
}

// TestOpenWhileCompressed: a path that was listed is opened whatever has become of it.
func TestOpenWhileCompressed(t *testing.T) {
	root := t.TempDir()
	appendAll(t, open(t, root, stream.Options{SegmentBytes: 1}), 2)
	segments, err := stream.Segments(stream.Dir(root, testID))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(segments[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	compress(t, segments[0].Path)
	f, err := Open(segments[0].Path)
	if err != nil || !f.Compressed() {
		t.Fatal(f, err)
	}
	defer f.Close()
	if size, err := f.Size(); size != int64(len(plain)) || err != nil {
		t.Errorf("%d bytes, %v", size, err)
	}
	// Both are there while the one takes the other's place: it is one segment.
	if err := os.WriteFile(segments[0].Path, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	both, err := stream.Segments(stream.Dir(root, testID))
	if err != nil || len(both) != 2 || both[0].Compressed() {
		t.Errorf("%v, %v", both, err)
	}
}

// TestNoCompressedSegment: what is none is damage, and the reader goes on behind it.
func TestNoCompressedSegment(t *testing.T) {
	r := openReader(t, writeFiles(t, map[string]string{"00000001.ndjson.zst": "x\n", "00000002.ndjson": "a\n"}), 0)
	lines, damage := readAll(t, r)
	if len(lines) != 1 || len(damage) != 1 || !errors.Is(damage[0].Err, seekable.ErrForm) {
		t.Errorf("%q, %v", lines, damage)
	}
}
