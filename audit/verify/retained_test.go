// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// compress puts a compressed segment in a plain one's place, as retention does.
func compress(t testing.TB, path string) {
	t.Helper()
	store(t, path+stream.CompressedSuffix, packed(t, bytes.NewReader(load(t, path))))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func packed(t testing.TB, content io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := seekable.Compress(&out, content); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// told adds a line to a stream's journal of removals.
func told(t testing.TB, dir, id string, key *signature.Key, from, to int) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, manifest.RemovalsName), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	j, err := journal.Open(file, manifest.RemovalsContext)
	if err == nil {
		err = j.Append(key, &manifest.Removal{ID: id, From: from, To: to, Reason: "max_age"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func segmentPath(dir string, n int) string { return filepath.Join(dir, stream.SegmentName(n)) }

// idOf is the id of a stream that is proven.
func idOf(t testing.TB, dir string, keys signature.Ring) string {
	t.Helper()
	s, err := verify.Dir(dir, keys)
	if err != nil || s.ID == "" {
		t.Fatal(s, err)
	}
	return s.ID
}

// retained is the sample as retention leaves it: its first segment is removed, and what is left is compressed.
func retained(t testing.TB, root string, key *signature.Key) {
	t.Helper()
	sample(t, root, sampleID, key)
	dir := stream.Dir(root, sampleID)
	told(t, dir, idOf(t, dir, signature.Ring{key.Public}), key, 1, 1)
	if err := os.Remove(segmentPath(dir, 1)); err != nil {
		t.Fatal(err)
	}
	segments, err := stream.Segments(dir)
	if err != nil || len(segments) < 2 {
		t.Fatal(segments, err)
	}
	for _, s := range segments {
		compress(t, s.Path)
	}
}

// TestRemoved: segments that are not there are told, or missing.
func TestRemoved(t *testing.T) {
	key, keys := newKey(t)
	fresh := t.TempDir()
	sample(t, fresh, sampleID, key)
	sample(t, fresh, otherID, key)
	dir := func(root string) string { return stream.Dir(root, sampleID) }
	id := idOf(t, dir(fresh), keys)
	remove := func(root string, numbers ...int) {
		t.Helper()
		for _, n := range numbers {
			if err := os.Remove(segmentPath(dir(root), n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		what string
		do   func(root string)
		want verify.Code // of a fault; empty: none
	}{
		{"the first one", func(root string) { told(t, dir(root), id, key, 1, 1); remove(root, 1) }, ""},
		{"one after the other", func(root string) {
			told(t, dir(root), id, key, 1, 1)
			told(t, dir(root), id, key, 2, 2)
			remove(root, 1, 2)
		}, ""},
		{"told, and not removed yet", func(root string) { told(t, dir(root), id, key, 1, 2); remove(root, 1) }, ""},
		{"told, and told again", func(root string) {
			told(t, dir(root), id, key, 1, 2)
			remove(root, 1)
			told(t, dir(root), id, key, 2, 2)
			remove(root, 2)
		}, ""},
		{"without a line", func(root string) { remove(root, 1) }, verify.SegmentMissing},
		{"more than was told", func(root string) { told(t, dir(root), id, key, 1, 1); remove(root, 1, 2) }, verify.SegmentMissing},
		{"another one than was told", func(root string) { told(t, dir(root), id, key, 1, 1); remove(root, 2) }, verify.SegmentMissing},
		{"a line of another stream", func(root string) {
			told(t, dir(root), idOf(t, stream.Dir(root, otherID), keys), key, 1, 1)
			remove(root, 1)
		}, verify.RemovalsChanged},
		{"a line by somebody else", func(root string) {
			other, _ := newKey(t)
			told(t, dir(root), id, other, 1, 1)
			remove(root, 1)
		}, verify.UnknownKey},
		{"a line of nothing", func(root string) { told(t, dir(root), id, key, 2, 1) }, verify.RemovalsChanged},
		{"half a line", func(root string) { store(t, filepath.Join(dir(root), "removals"), []byte(`{"v":1`)) }, ""},
	} {
		root := clone(t, fresh)
		tt.do(root)
		faults, unjudged := judge(t, root, keys)
		if tt.want == "" && faults != nil || tt.want != "" && !has(faults, tt.want) || unjudged != nil {
			t.Errorf("%s: %v, %v; want %q", tt.what, faults, unjudged, tt.want)
		}
	}
}

// TestCompressed: what is in a compressed segment is proven like what was there before.
func TestCompressed(t *testing.T) {
	key, keys := newKey(t)
	fresh := t.TempDir()
	sample(t, fresh, sampleID, key)
	segments, err := stream.Segments(stream.Dir(fresh, sampleID))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range segments {
		root := clone(t, fresh)
		path := segmentPath(stream.Dir(root, sampleID), s.Number)
		plain := load(t, path)
		compress(t, path)
		clean(t, root, keys)
		for name, content := range map[string][]byte{
			"nothing":             nil,
			"less":                plain[:len(plain)-1],
			"more":                append(bytes.Clone(plain), '\n'),
			"a gigabyte of zeros": nil,
			"another segment":     load(t, segments[(i+1)%len(segments)].Path),
			"a changed record":    bytes.Replace(plain, []byte(`"kind"`), []byte(`"Kind"`), 1),
		} {
			from := io.Reader(bytes.NewReader(content))
			if name == "a gigabyte of zeros" {
				from = io.LimitReader(zeros{}, 1<<30)
			}
			if name != "a gigabyte of zeros" || i == 0 {
				store(t, path+stream.CompressedSuffix, packed(t, from))
				if faults, _ := judge(t, root, keys); faults == nil {
					t.Errorf("segment %d: %s: it is not found", s.Number, name)
				}
			}
		}
		store(t, path+stream.CompressedSuffix, plain)
		if faults, _ := judge(t, root, keys); !has(faults, verify.CompressedDamaged) {
			t.Errorf("what is not compressed: %v", faults)
		}
		// As it is while retention replaces it, and if that was killed.
		store(t, path+stream.CompressedSuffix, packed(t, bytes.NewReader(plain)))
		store(t, path, plain)
		clean(t, root, keys)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestRemovedStream: a stream that is gone is told, or missing, whether it is on its way or has been put back.
func TestRemovedStream(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	sample(t, root, otherID, key)
	dir := stream.Dir(root, sampleID)
	s, err := verify.Dir(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	before := clone(t, root)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if faults, _ := judge(t, root, keys); !has(faults, verify.StreamGone) {
		t.Errorf("without a line: %v", faults)
	}
	_, err = ledger.Append(root, key, &ledger.Entry{Kind: ledger.Removed, ID: s.ID, Stream: s.Stream, Seq: s.Records, Chain: s.Chain}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	clean(t, root, keys)
	if err := os.CopyFS(dir, os.DirFS(stream.Dir(before, sampleID))); err != nil {
		t.Fatal(err)
	}
	var found []verify.Finding
	_, err = verify.Node(root, keys, func(stream.Stream) bool { return true }, func(s *verify.Stream) error {
		found = append(found, s.Findings...)
		return nil
	})
	if err != nil || !slices.ContainsFunc(found, func(x verify.Finding) bool { return x.Severity == verify.Note && x.Code == verify.Removed }) {
		t.Errorf("with a line, and there: %v, %v", found, err)
	}
	// Its container is started again: that is another stream.
	if err := errors.Join(os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	sample(t, root, sampleID, key)
	clean(t, root, keys)
}

// TestRemovalNotDone: retention was killed before a stream was gone that it had told of, and its container is started again. That stream is
// judged like any other.
func TestRemovalNotDone(t *testing.T) {
	key, keys := newKey(t)
	root := t.TempDir()
	sample(t, root, sampleID, key)
	sample(t, root, otherID, key)
	dir := stream.Dir(root, sampleID)
	s, err := verify.Dir(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ledger.Append(root, key, &ledger.Entry{Kind: ledger.Removed, ID: s.ID, Stream: s.Stream, Seq: s.Records, Chain: s.Chain}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, sampleID, key, 3)
	clean(t, root, keys)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if faults, _ := judge(t, root, keys); !has(faults, verify.StreamGone) {
		t.Errorf("gone since: %v", faults)
	}
}
