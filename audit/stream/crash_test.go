// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
)

func errorText(args ...any) string { return fmt.Sprintln(args...) }

// childWriter appends until it is killed, and says on stdout how much was acknowledged. It folds 3 and
// settles 2 with each record.
func childWriter(root string, o Options) {
	w, err := OpenWriter(Dir(root, testID), testID, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if err := errors.Join(w.Fold(3), w.AppendFolded(call(i), 2)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// One write(2) a line, so that what was read was acknowledged before.
		if _, err := os.Stdout.WriteString(strconv.FormatUint(w.Seq(), 10) + "\n"); err != nil {
			os.Exit(1)
		}
	}
}

// TestKilledWriter kills writers at any moment. What they acknowledged is there, the chain is whole, and
// what was folded is counted exactly.
func TestKilledWriter(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	var last, settled uint64
	for round := range rounds {
		cmd := exec.Command(os.Args[0], root)
		cmd.Env = append(os.Environ(), childEnv+"=writer")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := last
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if acknowledged, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				break // the last line, torn
			}
			if n == 5+17*round%50 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		w := open(t, root, Options{})
		records := w.Seq() - last
		// The records were settled with 2 each; a record that was announced and is not there was not.
		settled += 2 * records
		folded := w.Recovered().Folded + settled
		// Each round may have folded once more than it wrote; this test itself appends one record a round.
		least := 3 * (w.Seq() - uint64(round))
		most := least + 3*uint64(round+1)
		if w.Seq() < acknowledged || folded%3 != 0 || folded < least || folded > most {
			t.Errorf("round %d: seq %d, acknowledged %d; folded in all %d, want %d to %d", round, w.Seq(), acknowledged, folded, least, most)
		}
		appendAll(t, w, 1)
		last = w.Seq()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, dir, last)
	}
}

// TestTornTail cuts a stream at each byte of its last record, as a crash might, and damages its end.
func TestTornTail(t *testing.T) {
	root := t.TempDir()
	w := open(t, root, Options{SegmentBytes: 3000})
	appendAll(t, w, 5)
	segments, err := Segments(w.dir.Name())
	if err != nil || len(segments) != 2 {
		t.Fatalf("%d segments, error %v; the test wants 2", len(segments), err)
	}
	data, err := os.ReadFile(segments[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	before := uint64(5 - bytes.Count(data, []byte("\n"))) // records in the first segment
	lastRecord := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	for cut := lastRecord; cut <= len(data); cut++ {
		copied := copyStream(t, w.dir.Name())
		path := filepath.Join(Dir(copied, testID), filepath.Base(segments[1].Path))
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		next, err := OpenWriter(Dir(copied, testID), testID, Options{})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		left := data[:cut]
		torn := len(left) - (bytes.LastIndexByte(left, '\n') + 1)
		if want := before + uint64(bytes.Count(left, []byte("\n"))); next.Seq() != want || next.Recovered().Bytes != uint64(torn) {
			t.Errorf("cut at %d: seq %d, %d bytes recovered; want %d, %d", cut, next.Seq(), next.Recovered().Bytes, want, torn)
		}
		appendAll(t, next, 1)
		seq := next.Seq()
		for _, f := range []*os.File{next.segment, next.folded.file, next.dir} { // without the syncs of Close
			f.Close()
		}
		if cut%97 == 0 || cut >= len(data)-1 {
			check(t, Dir(copied, testID), seq)
		}
		os.RemoveAll(copied)
	}
	for name, tail := range map[string]string{
		"zeros":                  strings.Repeat("\x00", 70_000),
		"zeros with a newline":   strings.Repeat("\x00", 70_000) + "\n",
		"a line that is none":    "hello\n",
		"a record without chain": string(testRecord()) + "\n",
		"empty lines":            "\n\n\n",
		"a line without end":     strings.Repeat("x", audit.MaxRecord+10_000),
		"a line that is too long": strings.Repeat("x", audit.MaxRecord+10_000) + "\n" +
			strings.Repeat("y", 10),
	} {
		copied := copyStream(t, w.dir.Name())
		path := filepath.Join(Dir(copied, testID), filepath.Base(segments[1].Path))
		if err := os.WriteFile(path, append(bytes.Clone(data), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		next := open(t, copied, Options{})
		if next.Seq() != 5 || next.Recovered().Bytes != uint64(len(tail)) {
			t.Errorf("%s: seq %d, %d bytes recovered; want 5, %d", name, next.Seq(), next.Recovered().Bytes, len(tail))
		}
		appendAll(t, next, 1)
		check(t, Dir(copied, testID), 6)
	}
}

func testRecord() []byte { return call(1).AppendJSON(nil, &testID, 6) }

func TestDamagedStreams(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
	}{
		{"no record in an earlier segment", map[string]string{"00000001.ndjson": "hello\n", "00000002.ndjson": ""}},
		{"no record, and the first segments are gone", map[string]string{"00000007.ndjson": "hello"}},
		{"endless damage", map[string]string{"00000001.ndjson": strings.Repeat("x\n", 2*maxSkips)}},
	} {
		root := t.TempDir()
		dir := Dir(root, testID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range tt.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenWriter(dir, testID, Options{LockWait: -1}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", tt.name, err)
		}
		// It failed without keeping the lock.
		if _, err := OpenWriter(dir, testID, Options{LockWait: -1}); errors.Is(err, ErrLocked) {
			t.Errorf("%s: the lock was kept", tt.name)
		}
	}
}

func TestFirstRecordTorn(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(1)), testRecord()[:200], 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, root, Options{})
	if w.Seq() != 0 || w.Recovered().Bytes != 200 {
		t.Errorf("seq %d, recovered %+v", w.Seq(), w.Recovered())
	}
	appendAll(t, w, 1)
	check(t, dir, 1)
}
