// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/stream"
)

var compress = Policy{Compress: true}

// TestCompress: of a stream that is written all but its last segment is compressed, of a closed one that as well, once its container has been
// gone for a while; and whoever goes on with it finds its place.
func TestCompress(t *testing.T) {
	n := newNode(t)
	id := identity("p", "c")
	dir := stream.Dir(n.root, id)
	w := n.open(id)
	n.records(w, 100)
	before := count(t, dir)
	report, did := n.round(compress, 0)
	same(t, "while it is written", names(t, dir), "1.ndjson.zst", "2.ndjson.zst", "3.ndjson.zst", "4.ndjson")
	if len(did) != 3 || report.Compressed != 3 || report.Saved < 3*4096 || did[0].After >= did[0].Before || report.Streams != 1 {
		t.Errorf("%+v, %+v", report, did)
	}
	n.proven("while it is written")
	n.end(w)
	n.round(compress, time.Minute)
	same(t, "just closed", names(t, dir)[3:], "4.ndjson")
	n.round(compress, 2*time.Hour)
	same(t, "closed", names(t, dir)[3:], "4.ndjson.zst")
	n.proven("closed")
	if _, did := n.round(compress, 3*time.Hour); did != nil {
		t.Errorf("another round has done %v", did)
	}
	if got := count(t, dir); got != before+1 {
		t.Errorf("%d records, want %d", got, before+1)
	}
	w = n.open(id)
	if w.Seq() != uint64(before+1) || !w.Recovered().IsZero() {
		t.Errorf("opened again, it ends with record %d, %+v", w.Seq(), w.Recovered())
	}
	n.records(w, 100)
	n.proven("opened again")
	n.end(w)
	n.round(compress, 2*time.Hour)
	n.proven("all of it compressed")
	if got := count(t, dir); got != before+102 {
		t.Errorf("%d records, want %d", got, before+102)
	}
}

// TestRemoveByAge: the oldest segments go, then the whole stream, and with it in the end the pod's directory.
func TestRemoveByAge(t *testing.T) {
	n := newNode(t)
	old := Policy{MaxAge: 24 * time.Hour}
	id := identity("p", "c")
	dir := stream.Dir(n.root, id)
	w := n.open(id)
	n.records(w, 100)
	if _, did := n.round(old, 23*time.Hour); did != nil {
		t.Errorf("too early: %v", did)
	}
	_, did := n.round(old, 25*time.Hour)
	same(t, "while it is written", names(t, dir), "4.ndjson")
	if len(did) != 1 || did[0].From != 1 || did[0].To != 3 || did[0].Reason != "max_age" || did[0].Whole {
		t.Errorf("%+v", did)
	}
	n.proven("while it is written")
	n.records(w, 100)
	n.round(Policy{Compress: true, MaxAge: 24 * time.Hour}, 26*time.Hour)
	same(t, "later", names(t, dir), "8.ndjson")
	n.proven("later")
	n.end(w)
	n.proven("closed")
	other := n.ended("p", "d", 10)
	report, did := n.round(old, 27*time.Hour)
	if len(did) != 2 || !did[0].Whole || report.Whole != 2 || report.Streams != 0 {
		t.Errorf("%+v, %+v", report, did)
	}
	for _, dir := range []string{dir, other} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	n.proven("removed")
	n.round(old, 28*time.Hour)
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's directory: %v", err)
	}
	n.ended("p", "c", 10)
	n.proven("begun anew")
}

// TestRemoveBySize: the oldest records of the node, or of a pod, go until what is left is small enough.
func TestRemoveBySize(t *testing.T) {
	n := newNode(t)
	var writers []*stream.Writer
	for _, pod := range []string{"first", "second", "third"} {
		w := n.open(identity(pod, "c"))
		n.records(w, 100)
		writers = append(writers, w)
	}
	dir := func(pod string) string { return stream.Dir(n.root, identity(pod, "c")) }
	report, _ := n.round(Policy{PodSize: report(n).Largest - 1}, 0)
	if report.Segments != 3 {
		t.Errorf("of each pod one segment: %+v", report)
	}
	for _, pod := range []string{"first", "second", "third"} {
		same(t, pod, names(t, dir(pod)), "2.ndjson", "3.ndjson", "4.ndjson")
	}
	n.round(Policy{NodeSize: report.Bytes - 3*segmentBytes}, 0)
	same(t, "the oldest", names(t, dir("first")), "4.ndjson")
	same(t, "the newest", names(t, dir("third")), "2.ndjson", "3.ndjson", "4.ndjson")
	n.proven("reduced")
	n.round(Policy{NodeSize: 1}, 0)
	for _, pod := range []string{"first", "second", "third"} {
		same(t, pod, names(t, dir(pod)), "4.ndjson")
	}
	n.proven("as little as can be")
	for _, w := range writers {
		n.end(w)
	}
}

func report(n *node) Report {
	r, _ := n.round(Policy{}, 0)
	return r
}

// TestShipped: nothing goes that a sink that is waited for has not confirmed.
func TestShipped(t *testing.T) {
	n := newNode(t)
	everything := Policy{MaxAge: time.Nanosecond}
	w := n.open(identity("p", "c"))
	n.records(w, 100)
	dir := n.ended("p", "d", 40)
	live := stream.Dir(n.root, identity("p", "c"))
	checkpoints := t.TempDir()
	confirm := func(sink string, c, d uint64) {
		t.Helper()
		marks := map[string]checkpoint.Mark{}
		for container, seq := range map[string]uint64{"c": c, "d": d} {
			found, err := look(stream.Stream{Path: stream.Dir(n.root, identity("p", container))})
			if err != nil {
				t.Fatal(err)
			}
			told, err := found.read(n.keys)
			if err != nil {
				t.Fatal(err)
			}
			name := "a_p_u/" + container
			marks[name] = checkpoint.Mark{Stream: name, ID: told.id, Seq: seq, Chain: strings.Repeat("0", 64), At: stream.Position{Segment: 1}}
		}
		if err := (&checkpoint.Checkpoint{Sink: sink, Marks: marks}).Save(checkpoints); err != nil {
			t.Fatal(err)
		}
	}
	round := func() (Report, []Action) {
		t.Helper()
		confirmed, err := Shipped(checkpoints, []string{"siem", "archive"})
		if err != nil {
			t.Fatal(err)
		}
		return n.round(everything, 2*time.Hour, func(r *Round) { r.Confirmed = confirmed })
	}
	if report, did := round(); did != nil || report.Backlog == 0 {
		t.Errorf("nothing is confirmed: %+v, %v", report, did)
	}
	confirm("siem", math.MaxInt64, math.MaxInt64)
	if _, did := round(); did != nil {
		t.Errorf("one has all, and the other nothing: %v", did)
	}
	second := n.lastOf(live, 2)
	confirm("archive", second-1, 40)
	round()
	same(t, "all but one record of the second segment", names(t, live), "2.ndjson", "3.ndjson", "4.ndjson")
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("all but the end record: %v", err)
	}
	confirm("archive", second, 41)
	round()
	same(t, "all of the second segment", names(t, live), "3.ndjson", "4.ndjson")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the end record as well: %v", err)
	}
	n.proven("what is left")
	n.end(w)
	if err := os.WriteFile(filepath.Join(checkpoints, "siem.checkpoint"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	confirmed, err := Shipped(checkpoints, []string{"siem"})
	if err == nil || confirmed("a_p_u/c", "") != 0 {
		t.Errorf("a checkpoint that cannot be read: %v", err)
	}
}

// lastOf is the number of the last record of a segment, as the manifest says.
func (n *node) lastOf(dir string, number int) uint64 {
	n.Helper()
	found, err := look(stream.Stream{Path: dir})
	if err != nil {
		n.Fatal(err)
	}
	told, err := found.read(n.keys)
	if err != nil || told.lines[number] == nil {
		n.Fatal(told, err)
	}
	return told.lines[number].Last
}

// TestUnsigned: of streams of an earlier version only what has ended is touched, and it goes as a whole.
func TestUnsigned(t *testing.T) {
	n := newNode(t)
	n.key = nil
	id := identity("p", "c")
	w := n.open(id)
	n.records(w, 100)
	dir := n.ended("p", "d", 100)
	everything := Policy{MaxAge: time.Nanosecond, Compress: true}
	if _, did := n.round(everything, 0); did != nil {
		t.Errorf("too early: %v", did)
	}
	n.round(compress, 2*time.Hour)
	same(t, "ended", names(t, dir), "1.ndjson.zst", "2.ndjson.zst", "3.ndjson.zst", "4.ndjson.zst")
	same(t, "written", names(t, stream.Dir(n.root, id)), "1.ndjson", "2.ndjson", "3.ndjson", "4.ndjson")
	if got := count(t, dir); got != 101 {
		t.Errorf("%d records", got)
	}
	if _, did := n.round(everything, 2*time.Hour); len(did) != 1 || !did[0].Whole {
		t.Errorf("%+v", did)
	}
	n.end(w)
}
