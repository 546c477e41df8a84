// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// chain writes records anew, as somebody would who knows how the chain is made and has no key.
func chain(all [][]byte) [][]byte {
	previous := strings.Repeat("0", 64)
	out := make([][]byte, len(all))
	for i, line := range all {
		body, _, _ := bytes.Cut(line, []byte(`,"chain":"`))
		sum := sha256.Sum256(append([]byte(previous), body...))
		previous = hex.EncodeToString(sum[:])
		out[i] = append(append(bytes.Clone(body), `,"chain":"`+previous...), "\"}\n"...)
	}
	return out
}

// TestRechained: a record is changed, and all that follow from it are made to fit.
func TestRechained(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	dir := stream.Dir(root, sampleID)
	all, sizes := lines(t, dir)
	put(t, dir, chain(all), sizes)
	clean(t, root, keys) // the test knows how
	for i := range all {
		changed := make([][]byte, len(all))
		copy(changed, all)
		changed[i] = bytes.Replace(all[i], []byte(`"container":"c"`), []byte(`"container":"c","exec2":""`), 1)
		put(t, dir, chain(changed), sizes)
		faults, _ := judge(t, root, keys)
		if !has(faults, verify.Rewritten) || has(faults, verify.RecordChanged) {
			t.Errorf("record %d: %v", i+1, faults)
		}
		if _, err := segment.CheckChain(dir); err != nil {
			t.Errorf("record %d: the chain does not hold: %v", i+1, err)
		}
	}
}

// TestForged: all is signed anew, with another key.
func TestForged(t *testing.T) {
	_, keys := newKey(t)
	other, others := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, other)
	clean(t, root, others)
	if faults, _ := judge(t, root, keys); !has(faults, verify.UnknownKey) {
		t.Errorf("%v", faults)
	}
	if faults, _ := judge(t, root, append(keys, others...)); faults != nil {
		t.Errorf("with both keys: %v", faults)
	}
}

// TestNoKey: without one nothing is proven, and a broken chain is found all the same.
func TestNoKey(t *testing.T) {
	key, _ := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	if faults, unjudged := judge(t, root, nil); faults != nil || !has(unjudged, verify.NoKey) {
		t.Errorf("%v, %v", faults, unjudged)
	}
	path := filepath.Join(stream.Dir(root, sampleID), "00000002.ndjson")
	store(t, path, bytes.Replace(load(t, path), []byte(`"count":0`), []byte(`"count":1`), 1))
	if faults, _ := judge(t, root, nil); !has(faults, verify.RecordChanged) {
		t.Errorf("changed: %v", faults)
	}
}

// TestUnsigned: of a stream without a manifest the chain is checked.
func TestUnsigned(t *testing.T) {
	_, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, nil)
	s, err := verify.Dir(stream.Dir(root, sampleID), keys)
	if err != nil || s.Verdict() != verify.Unjudged || s.State != verify.Unsigned || s.Records != 6 || s.Stream != "a_p_u/c" {
		t.Errorf("%+v, %v", s, err)
	}
	sample(t, root, otherID, nil)
	second := filepath.Join(stream.Dir(root, sampleID), "00000002.ndjson")
	store(t, second, load(t, filepath.Join(stream.Dir(root, otherID), "00000002.ndjson")))
	if faults, _ := judge(t, root, keys); !has(faults, verify.RecordForeign) || !has(faults, verify.RecordChanged) {
		t.Errorf("%v", faults)
	}
}

// TestTornTail: of a stream that is open, half a record and half a line are no fault; of one that was closed they are.
func TestTornTail(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	w := begin(t, root, sampleID, key, 3)
	open := clone(t, root)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00000002.ndjson", "manifest"} {
		for at, want := range map[string]bool{open: false, root: true} {
			path := filepath.Join(stream.Dir(at, sampleID), name)
			data := load(t, path)
			store(t, path, append(bytes.Clone(data), `{"v":1,`...))
			faults, _ := judge(t, at, keys)
			if (faults != nil) != want {
				t.Errorf("%s, closed %v: %v", name, want, faults)
			}
			store(t, path, data)
		}
	}
}

// TestWhere: what is told says exactly where it is.
func TestWhere(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	dir := stream.Dir(root, sampleID)
	path := filepath.Join(dir, "00000002.ndjson")
	data := load(t, path)
	second := int64(bytes.IndexByte(data, '\n') + 1)
	store(t, path, append(bytes.Clone(data[:second]), bytes.Replace(data[second:], []byte(`"count"`), []byte(`"Count"`), 1)...))
	s, err := verify.Dir(dir, keys)
	if err != nil || len(s.Findings) == 0 {
		t.Fatal(s, err)
	}
	want := verify.Finding{Severity: verify.Fault, Code: verify.RecordChanged, File: "00000002.ndjson", Offset: second, Seq: 4}
	got := s.Findings[0]
	if got.Message == "" {
		t.Error("it says nothing")
	}
	if got.Message = ""; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestManyFaults: what is told of one stream is bounded.
func TestManyFaults(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	path := filepath.Join(stream.Dir(root, sampleID), "00000001.ndjson")
	store(t, path, []byte(strings.Repeat("x\n", 5000)+strings.Repeat("y", 2*audit.MaxRecord)+"\n"))
	s, err := verify.Dir(stream.Dir(root, sampleID), keys)
	if err != nil || len(s.Findings) > 100 || s.LeftOut < 4900 {
		t.Errorf("%d findings, %d left out, %v", len(s.Findings), s.LeftOut, err)
	}
}

func TestNoStream(t *testing.T) {
	_, keys := newKey(t)
	if _, err := verify.Dir(filepath.Join(t.TempDir(), "none"), keys); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "manifest")); err != nil {
		t.Fatal(err)
	}
	if s, err := verify.Dir(dir, keys); err != nil || s.Verdict() != verify.Fault || s.Findings[0].Code != verify.Unreadable {
		t.Errorf("a link: %+v, %v", s, err)
	}
}
