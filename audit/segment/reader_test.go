// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

func openReader(t testing.TB, dir string, from int) *Reader {
	t.Helper()
	r, err := OpenReader(dir, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// readAll reads to the present end and returns the lines and the damage on the way.
func readAll(t testing.TB, r *Reader) (lines []string, damage []DamageError) {
	t.Helper()
	for range 1 << 20 {
		line, err := r.Next()
		var d *DamageError
		switch {
		case errors.Is(err, io.EOF):
			return lines, damage
		case errors.As(err, &d):
			damage = append(damage, *d)
		case err != nil:
			t.Fatal(err)
		default:
			lines = append(lines, string(line))
		}
	}
	t.Fatal("the reader does not end")
	return nil, nil
}

func writeFiles(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", audit.MaxRecord+1)
	for _, tt := range []struct {
		name   string
		files  map[string]string
		from   int
		want   []string
		damage []int64 // bytes of each
	}{
		{"empty", nil, 0, nil, nil},
		{"empty segment", map[string]string{"00000001.ndjson": ""}, 0, nil, nil},
		{"segments in order", map[string]string{"00000001.ndjson": "a\nb\n", "00000002.ndjson": "c\n", "00000010.ndjson": "d\n"}, 0, []string{"a\n", "b\n", "c\n", "d\n"}, nil},
		{"from the middle", map[string]string{"00000001.ndjson": "a\n", "00000002.ndjson": "c\n"}, 2, []string{"c\n"}, nil},
		{"foreign files", map[string]string{"00000001.ndjson": "a\n", "1.ndjson": "x\n", "00000000.ndjson": "x\n", "00000002.ndjson.zst.tmp": "x\n", "folded": "x\n"}, 0, []string{"a\n"}, nil},
		{"live, torn", map[string]string{"00000001.ndjson": "a\nb"}, 0, []string{"a\n"}, nil},
		{"torn in an earlier segment", map[string]string{"00000001.ndjson": "a\nbb", "00000002.ndjson": "c\n"}, 0, []string{"a\n", "c\n"}, []int64{2}},
		{"too long", map[string]string{"00000001.ndjson": "a\n" + long + "\nb\n"}, 0, []string{"a\n", "b\n"}, []int64{audit.MaxRecord + 2}},
		{"too long, without end", map[string]string{"00000001.ndjson": "a\n" + long}, 0, []string{"a\n"}, []int64{audit.MaxRecord + 1}},
		{"long", map[string]string{"00000001.ndjson": long[:audit.MaxRecord-1] + "\nb\n"}, 0, []string{long[:audit.MaxRecord-1] + "\n", "b\n"}, nil},
	} {
		lines, damage := readAll(t, openReader(t, writeFiles(t, tt.files), tt.from))
		same := len(lines) == len(tt.want) && len(damage) == len(tt.damage)
		for i := 0; same && i < len(lines); i++ {
			same = lines[i] == tt.want[i]
		}
		for i := 0; same && i < len(damage); i++ {
			same = damage[i].Bytes == tt.damage[i]
		}
		if !same {
			t.Errorf("%s: %d lines, damage %+v; want %d, %v", tt.name, len(lines), damage, len(tt.want), tt.damage)
		}
	}
	if _, err := OpenReader(t.TempDir()+"/none", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stream that is not there: %v", err)
	}
}

// TestReaderRefuses: a copied directory may hold anything; the reader neither follows nor blocks.
func TestReaderRefuses(t *testing.T) {
	dir := writeFiles(t, map[string]string{"00000003.ndjson": "c\n"})
	if err := errors.Join(os.Symlink("/etc/passwd", dir+"/00000001.ndjson"), unix.Mkfifo(dir+"/00000002.ndjson", 0o600)); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, dir, 0)
	for range 2 {
		line, err := r.Next()
		var damage *DamageError
		if !errors.As(err, &damage) || damage.Err == nil {
			t.Errorf("read %q, %v", line, err)
		}
	}
	if line, err := r.Next(); string(line) != "c\n" {
		t.Errorf("read %q, %v; want what follows", line, err)
	}
}

// TestReaderFollows reads a stream while it is written, taken back, and rotated.
func TestReaderFollows(t *testing.T) {
	dir := t.TempDir()
	file, err := os.OpenFile(dir+"/00000001.ndjson", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { file.Close() }()
	put := func(s string) {
		t.Helper()
		if _, err := file.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	r := openReader(t, dir, 0)
	want := func(want ...string) {
		t.Helper()
		lines, damage := readAll(t, r)
		if strings.Join(lines, "|") != strings.Join(want, "|") || len(damage) > 0 {
			t.Fatalf("read %q, damage %v; want %q", lines, damage, want)
		}
	}
	want()
	put("a\nb")
	want("a\n")
	put("b\n")
	want("bb\n")
	put("taken ba")
	want()
	if err := file.Truncate(5); err != nil {
		t.Fatal(err)
	}
	put("other\n")
	want("other\n")
	put("last\n")
	next, err := os.OpenFile(dir+"/00000002.ndjson", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	file = next
	put("c\n")
	want("last\n", "c\n")
	if r.Segment().Number != 2 {
		t.Errorf("segment %d, want 2", r.Segment().Number)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	want()
}

// TestReaderAndWriter reads all that a writer appends, at the same time, across rotations.
func TestReaderAndWriter(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, stream.Options{SegmentBytes: 5000})
	r := openReader(t, stream.Dir(root, testID), 0)
	const records = 500
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < records && err == nil; i++ {
			err = w.Append(call(i))
		}
		done <- err
	}()
	var seq uint64
	for ended := false; ; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
		lines, damage := readAll(t, r)
		if len(damage) > 0 {
			t.Fatal(damage)
		}
		for _, line := range lines {
			got := seqOf(t, line)
			if got != seq+1 {
				t.Fatalf("record %d follows %d", got, seq)
			}
			seq = got
		}
		if ended && len(lines) == 0 {
			break
		}
	}
	if seq != records {
		t.Errorf("read %d records, want %d", seq, records)
	}
}

// TestCheckChain finds each changed byte and each record that was taken out or moved.
func TestCheckChain(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, stream.Options{})
	appendAll(t, w, 3)
	data, err := os.ReadFile(stream.Dir(root, testID) + "/00000001.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fails := func(what string, changed []byte) {
		t.Helper()
		if err := os.WriteFile(dir+"/00000001.ndjson", changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := CheckChain(dir); err == nil && n == 3 {
			t.Errorf("%s: not found", what)
		}
	}
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 1
		fails("a bit", changed)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	fails("first taken out", bytes.Join(lines[1:], nil))
	fails("second taken out", bytes.Join([][]byte{lines[0], lines[2]}, nil))
	fails("moved", bytes.Join([][]byte{lines[1], lines[0], lines[2]}, nil))
	fails("twice", bytes.Join([][]byte{lines[0], lines[0], lines[1], lines[2]}, nil))
}

func TestListAndLast(t *testing.T) {
	root := t.TempDir()
	if _, err := stream.List(root + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root: %v", err)
	}
	w, dir := open(t, root, stream.Options{SegmentBytes: 1}), stream.Dir(root, testID) // each record has a segment
	if line, err := Last(dir); line != nil || err != nil {
		t.Errorf("an empty stream ends in %q, %v", line, err)
	}
	appendAll(t, w, 3)
	line, err := Last(dir)
	if err != nil || seqOf(t, string(line)) != 3 {
		t.Errorf("the last record is %q, %v; want the third", line, err)
	}
	if err := os.WriteFile(filepath.Join(dir, stream.SegmentName(4)), line[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := Last(dir); !bytes.Equal(again, line) || err != nil {
		t.Errorf("with a torn record behind it: %q, %v", again, err)
	}
	if err := errors.Join(os.WriteFile(root+"/file", nil, 0o600), os.Symlink("/", root+"/link"), os.Mkdir(root+"/empty", 0o700), os.MkdirAll(root+"/.hidden/x", 0o700)); err != nil {
		t.Fatal(err)
	}
	streams, err := stream.List(root)
	want := stream.Stream{Path: stream.Dir(root, testID), Pod: stream.PodName(testID.Namespace, testID.Pod, testID.PodUID), Container: "agent"}
	if err != nil || len(streams) != 1 || streams[0] != want {
		t.Errorf("listed %+v, %v; want %+v", streams, err, want)
	}
}

// FuzzReader: whatever the segments hold, the reader ends, gives back whole lines only, and accounts for
// each byte; and a writer either continues the stream with a whole chain behind what was there, or refuses it.
func FuzzReader(f *testing.F) {
	sample := f.TempDir()
	appendAll(f, open(f, sample, stream.Options{}), 2)
	whole, err := os.ReadFile(stream.Dir(sample, testID) + "/00000001.ndjson")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, []byte("torn"))
	f.Add([]byte("a\nb"), []byte("\n\n\x00\xff\n"))
	f.Add([]byte(""), whole)
	f.Add(whole, bytes.Replace(whole, []byte(`"seq":2`), []byte(`"seq":18446744073709551615`), 1))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		root := t.TempDir()
		dir := stream.Dir(root, testID)
		err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/00000001.ndjson", first, 0o600),
			os.WriteFile(dir+"/00000002.ndjson", second, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		lines, damage := readAll(t, openReader(t, dir, 0))
		n := int64(len(strings.Join(lines, "")))
		for _, d := range damage {
			n += d.Bytes
		}
		live := len(second) - (bytes.LastIndexByte(second, '\n') + 1)
		if n != int64(len(first)+len(second)-live) && n != int64(len(first)+len(second)) {
			t.Fatalf("%d bytes of %d and %d are accounted for", n, len(first), len(second))
		}
		if _, err := CheckChain(dir); err == nil && len(lines) > 0 && seqOf(t, lines[len(lines)-1]) != uint64(len(lines)) {
			t.Fatal("the chain is whole, its numbers are not")
		}
		w, err := stream.OpenWriter(dir, testID, stream.Options{LockWait: -1})
		if err != nil {
			return
		}
		seq := w.Seq()
		if err := w.Append(call(1)); err != nil && seq+1 != 0 {
			t.Fatal(err)
		}
		w.Close()
		if line, err := Last(dir); err != nil || seqOf(t, string(line)) != seq+1 {
			t.Fatalf("after an append the stream ends in %q, %v", line, err)
		}
	})
}
