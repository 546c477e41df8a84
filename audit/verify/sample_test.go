// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// TestMain: thousands of small files are written.
func TestMain(m *testing.M) {
	if unix.Access("/dev/shm", unix.W_OK) == nil {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

var (
	sampleID = audit.Identity{Node: "n", Namespace: "a", Pod: "p", PodUID: "u", Container: "c", ContainerID: "i"}
	otherID  = audit.Identity{Node: "n", Namespace: "a", Pod: "p", PodUID: "u", Container: "d", ContainerID: "i"}
)

func newKey(t testing.TB) (*signature.Key, signature.Ring) {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key, signature.Ring{key.Public}
}

// write opens a stream, adds so many records to it, the last one of them that of the end, and closes it.
func write(t testing.TB, root string, id audit.Identity, key *signature.Key, records int) {
	t.Helper()
	w := begin(t, root, id, key, records-1)
	if err := w.Append(&audit.Event{Kind: audit.KindEnd, End: &audit.End{}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, root string, id audit.Identity, key *signature.Key, records int) *stream.Writer {
	t.Helper()
	w, err := stream.OpenWriter(stream.Dir(root, id), id, stream.Options{Key: key, SegmentBytes: 700})
	if err != nil {
		t.Fatal(err)
	}
	for n := range records {
		if err := w.Append(&audit.Event{Time: time.Unix(1_800_000_000, int64(n)), Kind: audit.KindOOM, OOM: &audit.OOM{}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(); err != nil { // what is complete is listed
		t.Fatal(err)
	}
	return w
}

// sample writes a small stream of three segments in two instances.
func sample(t testing.TB, root string, id audit.Identity, key *signature.Key) {
	t.Helper()
	write(t, root, id, key, 3)
	write(t, root, id, key, 3)
}

// judge verifies all streams below root. It returns the codes of the faults, and what is not proven at all.
func judge(t testing.TB, root string, keys signature.Ring) (faults, unjudged []verify.Code) {
	t.Helper()
	collect := func(list []verify.Finding) {
		for _, x := range list {
			switch x.Severity {
			case verify.Fault:
				faults = append(faults, x.Code)
			case verify.Unjudged:
				unjudged = append(unjudged, x.Code)
			}
		}
	}
	ledger, err := verify.Node(root, keys, func(stream.Stream) bool { return true }, func(s *verify.Stream) error {
		collect(s.Findings)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	collect(ledger.Findings)
	return faults, unjudged
}

// clean fails the test unless all is proven below root.
func clean(t testing.TB, root string, keys signature.Ring) {
	t.Helper()
	if faults, unjudged := judge(t, root, keys); faults != nil || unjudged != nil {
		t.Fatalf("of streams that nobody has touched: %v, %v", faults, unjudged)
	}
}

// files returns the files below root, by their paths from there.
func files(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(root, path)
			list = append(list, path)
		}
		return err
	})
	if err != nil || len(list) < 5 {
		t.Fatal(list, err)
	}
	return list
}

func load(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func store(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// clone copies everything below root.
func clone(t testing.TB, root string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := errors.Join(os.CopyFS(to, os.DirFS(root))); err != nil {
		t.Fatal(err)
	}
	return to
}

func has(list []verify.Code, code verify.Code) bool { return slices.Contains(list, code) }
