// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

var signedID = stream.TestID

func signingKey(t testing.TB) (*signature.Key, signature.Ring) {
	t.Helper()
	key, err := signature.New()
	if err != nil {
		t.Fatal(err)
	}
	return key, signature.Ring{key.Public}
}

func openSigned(t testing.TB, root string, o stream.Options) *stream.Writer {
	t.Helper()
	w, err := stream.OpenWriter(stream.Dir(root, signedID), signedID, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func oom(n int) *audit.Event {
	return &audit.Event{Time: time.Unix(1_800_000_000, int64(n)), Kind: audit.KindOOM, OOM: &audit.OOM{Count: 1}}
}

func end() *audit.Event { return &audit.Event{Kind: audit.KindEnd, End: &audit.End{}} }

func add(t testing.TB, w *stream.Writer, events ...*audit.Event) {
	t.Helper()
	for _, e := range events {
		if err := w.Append(e); err != nil {
			t.Fatal(err)
		}
	}
}

func closeSigned(t testing.TB, w *stream.Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// proven returns what is found of the stream below root, and fails if there is a fault, in it or in the ledger.
func proven(t testing.TB, what, root string, keys signature.Ring) *verify.Stream {
	t.Helper()
	var found *verify.Stream
	ledger, err := verify.Node(root, keys, func(stream.Stream) bool { return true }, func(s *verify.Stream) error { found = s; return nil })
	switch {
	case err != nil:
		t.Fatalf("%s: %v", what, err)
	case found == nil:
		t.Fatalf("%s: no stream", what)
	case found.Verdict() == verify.Fault || ledger.Verdict() == verify.Fault:
		t.Fatalf("%s: %+v\nledger %+v", what, found, ledger)
	}
	return found
}

func TestSigned(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	o := stream.Options{Key: key, SegmentBytes: 800, Problem: func(err error) { t.Error(err) }}
	w := openSigned(t, root, o)
	add(t, w, oom(1), oom(2), oom(3), oom(4))
	if s := proven(t, "open", root, keys); s.State != verify.Open || s.Records != 4 {
		t.Errorf("open: %+v", s)
	}
	w.Tick()
	if s := proven(t, "after a second", root, keys); s.Signed != 4 || s.SignedAt == nil {
		t.Errorf("after a second: %+v", s)
	}
	add(t, w, end())
	closeSigned(t, w)
	if s := proven(t, "ended", root, keys); s.State != verify.Ended || s.Signed != 5 || s.Verdict() != verify.Note || len(s.Findings) != 0 {
		t.Errorf("ended: %+v", s)
	}
	w = openSigned(t, root, o)
	add(t, w, oom(6))
	closeSigned(t, w)
	if s := proven(t, "another instance", root, keys); s.State != verify.Closed || s.Signed != 6 || s.Openings != 2 || len(s.Findings) != 0 {
		t.Errorf("another instance: %+v", s)
	}
	// A writer that adds nothing leaves the stream as ended as it was.
	w = openSigned(t, root, o)
	add(t, w, end())
	closeSigned(t, w)
	closeSigned(t, openSigned(t, root, o))
	if s := proven(t, "nothing added", root, keys); s.State != verify.Ended || s.Signed != 7 {
		t.Errorf("nothing added: %+v", s)
	}
}

// TestSignedWithinASecond: the writer does it by itself.
func TestSignedWithinASecond(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	w := openSigned(t, root, stream.Options{Key: key})
	defer closeSigned(t, w)
	for n := 1; n <= 2; n++ { // the timer is set again
		add(t, w, oom(n))
		for proven(t, "open", root, keys).Signed < uint64(n) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// TestOlderStream: a stream that was begun without a key is signed from then on, and what is older is bound by the chain.
func TestOlderStream(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	w := openSigned(t, root, stream.Options{SegmentBytes: 800})
	add(t, w, oom(1), oom(2), oom(3), oom(4), oom(5))
	closeSigned(t, w)
	if s := proven(t, "without a key", root, keys); s.Verdict() != verify.Unjudged || s.State != verify.Unsigned || s.Records != 5 {
		t.Errorf("without a key: %+v", s)
	}
	w = openSigned(t, root, stream.Options{SegmentBytes: 800, Key: key})
	add(t, w, oom(6), oom(7), oom(8))
	closeSigned(t, w)
	s := proven(t, "with a key", root, keys)
	if s.Verdict() != verify.Note || s.Signed != 8 || len(s.Findings) != 1 || s.Findings[0].Code != verify.SignedLate || s.Findings[0].Seq != 5 {
		t.Errorf("with a key: %+v", s)
	}
}

// TestNewKey: a node's key is changed, and both are given.
func TestNewKey(t *testing.T) {
	root := t.TempDir()
	first, _ := signingKey(t)
	second, _ := signingKey(t)
	w := openSigned(t, root, stream.Options{Key: first})
	add(t, w, oom(1))
	closeSigned(t, w)
	w = openSigned(t, root, stream.Options{Key: second})
	add(t, w, oom(2))
	closeSigned(t, w)
	if s := proven(t, "both", root, signature.Ring{first.Public, second.Public}); s.Signed != 2 || s.Verdict() != verify.Note {
		t.Errorf("both: %+v", s)
	}
	s, err := verify.Dir(stream.Dir(root, signedID), signature.Ring{second.Public})
	if err != nil || s.Verdict() != verify.Fault || s.Findings[0].Code != verify.UnknownKey {
		t.Errorf("one: %+v, %v", s, err)
	}
}

// TestCannotBeSigned: a head that cannot be written stops no record, is told once, and is written when it can be.
func TestCannotBeSigned(t *testing.T) {
	root := t.TempDir()
	key, keys := signingKey(t)
	var problems []error
	w := openSigned(t, root, stream.Options{Key: key, SegmentBytes: 800, Problem: func(err error) { problems = append(problems, err) }})
	if err := w.FailHead(true); err != nil {
		t.Fatal(err)
	}
	add(t, w, oom(1), oom(2))
	w.Tick()
	add(t, w, oom(3), oom(4), oom(5))
	w.Tick()
	if len(problems) != 1 {
		t.Errorf("problems %v", problems)
	}
	if err := w.FailHead(false); err != nil {
		t.Fatal(err)
	}
	w.Tick()
	add(t, w, end())
	closeSigned(t, w)
	if s := proven(t, "in the end", root, keys); s.State != verify.Ended || s.Signed != 6 || len(s.Findings) != 0 {
		t.Errorf("in the end: %+v", s)
	}
}

// TestNotOpenedUnsigned: what cannot be signed is not begun.
func TestNotOpenedUnsigned(t *testing.T) {
	key, _ := signingKey(t)
	for _, name := range []string{"manifest", "head"} {
		root := t.TempDir()
		dir := stream.Dir(root, signedID)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Symlink("/dev/null", filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.OpenWriter(dir, signedID, stream.Options{Key: key, LockWait: -1}); err == nil {
			t.Errorf("%s is a link: it was opened", name)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		w, err := stream.OpenWriter(dir, signedID, stream.Options{Key: key, LockWait: -1})
		if err != nil {
			t.Fatalf("%s: afterwards: %v", name, err)
		}
		closeSigned(t, w)
	}
}

func TestSignedAppendDoesNotAllocate(t *testing.T) {
	key, _ := signingKey(t)
	w := openSigned(t, t.TempDir(), stream.Options{Key: key})
	defer closeSigned(t, w)
	e := oom(1)
	if n := testing.AllocsPerRun(200, func() {
		if err := w.Append(e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTick(b *testing.B) {
	key, _ := signingKey(b)
	w := openSigned(b, b.TempDir(), stream.Options{Key: key})
	defer closeSigned(b, w)
	for b.Loop() {
		w.Tick()
	}
}

// BenchmarkOpenAndClose is what a container pays once.
func BenchmarkOpenAndClose(b *testing.B) {
	key, _ := signingKey(b)
	for _, place := range []string{"/dev/shm", "/var/tmp"} {
		for name, o := range map[string]stream.Options{"unsigned": {}, "signed": {Key: key}} {
			b.Run(filepath.Base(place)+"/"+name, func(b *testing.B) {
				root, err := os.MkdirTemp(place, "metsuke-bench")
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { os.RemoveAll(root) })
				for b.Loop() {
					w := openSigned(b, root, o)
					add(b, w, oom(1))
					closeSigned(b, w)
				}
			})
		}
	}
}
