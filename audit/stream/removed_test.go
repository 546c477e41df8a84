// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
)

func newKey(t testing.TB) *signature.Key {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// lines are the lines of a stream's manifest.
func lines(t testing.TB, dir string) (all []manifest.Entry) {
	t.Helper()
	data, err := os.ReadFile(dir + "/" + manifest.Name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e manifest.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// TestBehindCompressed: a writer goes on behind a closed stream's segment that was compressed, whose content it does not read.
func TestBehindCompressed(t *testing.T) {
	key, root := newKey(t), t.TempDir()
	dir := Dir(root, testID)
	begin := func() *Writer {
		t.Helper()
		w, err := OpenWriter(dir, testID, Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := begin()
	appendAll(t, w, 3)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	first := dir + "/00000001.ndjson"
	data, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(first, first+CompressedSuffix); err != nil {
		t.Fatal(err)
	}
	w = begin()
	if w.Seq() != 3 || w.number != 2 || !w.Recovered().IsZero() {
		t.Fatalf("it goes on behind record %d in segment %d, and has found %+v", w.Seq(), w.number, w.Recovered())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = begin()
	appendAll(t, w, 2)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, data, 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, dir, 5)
	var found *manifest.Complete
	for _, e := range lines(t, dir) {
		if e.Segment != nil {
			found = e.Segment
		}
	}
	if found == nil || found.Number != 1 || found.Last != 3 || found.Bytes != int64(len(data)) || found.Before != chainZero {
		t.Errorf("the manifest says %+v of the compressed segment", found)
	}
}

// TestBehindWhatNobodyClosed: without a place that was signed, nothing is begun behind a compressed segment.
func TestBehindWhatNobodyClosed(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	appendAll(t, open(t, root, Options{}), 3)
	other := container(2)
	if err := errors.Join(os.MkdirAll(Dir(root, other), 0o700), os.Rename(dir+"/00000001.ndjson", Dir(root, other)+"/00000001.ndjson.zst")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWriter(Dir(root, other), other, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if segments, err := Segments(Dir(root, other)); err != nil || len(segments) != 1 {
		t.Errorf("it has made %v, %v", segments, err)
	}
}

// TestChainBeforeWhatIsGone: the line of a segment says what it follows, also when that is compressed or removed.
func TestChainBeforeWhatIsGone(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	w := open(t, root, Options{Key: newKey(t), SegmentBytes: 1})
	appendAll(t, w, 2)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, w, 1)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/00000002.ndjson"); err != nil { // which has its line
		t.Fatal(err)
	}
	appendAll(t, w, 1)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	after := map[int]string{0: chainZero}
	for _, e := range lines(t, dir) {
		if s := e.Segment; s != nil {
			if after[s.Number-1] != s.Before {
				t.Errorf("segment %d follows %q, want %q", s.Number, s.Before, after[s.Number-1])
			}
			after[s.Number] = s.After
		}
	}
	if len(after) != 4 {
		t.Errorf("%d segments have a line", len(after)-1)
	}
}

// TestRemovedWhileItWaits: a writer that has waited for a stream which was then removed makes it anew.
func TestRemovedWhileItWaits(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root, testID)
	w := open(t, root, Options{})
	appendAll(t, w, 1)
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a stream that is written: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	held, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan *Writer)
	go func() {
		w, err := OpenWriter(dir, testID, Options{LockWait: time.Minute})
		if err != nil {
			t.Error(err)
		}
		opened <- w
	}()
	time.Sleep(20 * time.Millisecond) // so that it waits, most of the time
	if err := errors.Join(os.Rename(dir, root+"/gone"), Unlock(held)); err != nil {
		t.Fatal(err)
	}
	w = <-opened
	appendAll(t, w, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, dir, 1)
	if _, err := Lock(root + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stream that is not there: %v", err)
	}
}
