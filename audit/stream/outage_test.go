// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// writtenAt opens a stream in a boot, has 4 records on the disk and 4 that are not, in segments of 2, and returns the tree as it is then.
func writtenAt(t *testing.T, key *signature.Key, boot string, o stream.Options) (root string) {
	t.Helper()
	root = t.TempDir()
	o.Key, o.SegmentBytes, o.FlushInterval = key, 1100, time.Hour
	w := openSigned(t, root, stream.AtBoot(o, boot))
	defer closeSigned(t, w)
	add(t, w, oom(1), oom(2), oom(3), oom(4))
	w.Tick()
	crashed := copyTree(t, root)
	for { // a flush that a new segment has called for may be writing the head
		if s, err := verify.Dir(stream.Dir(crashed, signedID), signature.Ring{key.Public}); err == nil && s.Verdict() == verify.Note && s.Signed == 4 {
			break
		}
		crashed = copyTree(t, root)
	}
	add(t, w, oom(5), oom(6), oom(7), oom(8))
	later, err := filepath.Glob(stream.Dir(root, signedID) + "/0*.ndjson")
	for _, path := range later { // what is signed stays as it was: such a flush may come, or not
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			err = os.WriteFile(filepath.Join(stream.Dir(crashed, signedID), filepath.Base(path)), data, 0o600)
		}
		if err != nil {
			break
		}
	}
	if err != nil || len(later) != 4 {
		t.Fatal(later, err)
	}
	return crashed
}

// lastRecords returns the records of a stream, the last first.
func lastRecords(t *testing.T, root string) (list []*record.Record) {
	t.Helper()
	r, err := segment.OpenReader(stream.Dir(root, signedID), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		line, err := r.Next()
		if err != nil {
			return list
		}
		parsed, err := record.ParseStrict(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append([]*record.Record{parsed}, list...)
	}
}

// TestOutage: whatever of the records that were not synced a node that went down has kept, the stream goes on behind those that are whole,
// says of which time records may be missing, and is proven.
func TestOutage(t *testing.T) {
	key, keys := signingKey(t)
	root := writtenAt(t, key, "boot-1", stream.Options{})
	names, err := filepath.Glob(stream.Dir(root, signedID) + "/0*.ndjson")
	if err != nil || len(names) != 4 {
		t.Fatal(names, err)
	}
	zeros := func(path string, from, to int) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		copy(data[from:to], make([]byte, to-from))
		return os.WriteFile(path, data, 0o600)
	}
	third, fourth := filepath.Base(names[2]), filepath.Base(names[3])
	for _, tt := range []struct {
		name   string
		damage func(dir string) error
		left   uint64
	}{
		{"everything is there", func(string) error { return nil }, 8},
		{"the last record is torn", func(dir string) error { return os.Truncate(dir+"/"+fourth, 700) }, 7},
		{"the last segment is empty", func(dir string) error { return os.Truncate(dir+"/"+fourth, 0) }, 6},
		{"the last segment is not there", func(dir string) error { return os.Remove(dir + "/" + fourth) }, 6},
		{"blocks of the last segment are zeros", func(dir string) error { return zeros(dir+"/"+fourth, 0, 512) }, 6},
		{"blocks in the middle are zeros", func(dir string) error { return zeros(dir+"/"+third, 10, 522) }, 4},
		{"the segment before is shorter", func(dir string) error { return os.Truncate(dir+"/"+third, 600) }, 5},
		{"the segment before is not there", func(dir string) error { return os.Remove(dir + "/" + third) }, 4},
		{"nothing of it is there", func(dir string) error { return errors.Join(os.Remove(dir+"/"+third), os.Remove(dir+"/"+fourth)) }, 4},
	} {
		at := copyTree(t, root)
		if err := tt.damage(stream.Dir(at, signedID)); err != nil {
			t.Fatal(err)
		}
		w := openSigned(t, at, stream.AtBoot(stream.Options{Key: key, Synced: true}, "boot-2"))
		found := w.Recovered()
		if w.Seq() != tt.left || found.Missing != 0 || found.Outage.FlushInterval != time.Hour ||
			!found.Outage.From.Equal(time.Unix(1_800_000_000, int64(tt.left))) || found.Outage.Until.IsZero() {
			t.Errorf("%s: record %d, want %d; found %+v", tt.name, w.Seq(), tt.left, found)
		}
		if err := w.Report(audit.LossShim, "not this one"); err != nil {
			t.Fatal(err)
		}
		closeSigned(t, w)
		loss := lastRecords(t, at)[0].Event.Loss
		if loss == nil || loss.Reason != audit.LossNode || !loss.From.Equal(found.Outage.From) || loss.FlushInterval != time.Hour {
			t.Errorf("%s: the loss is %+v", tt.name, loss)
		}
		if s := proven(t, tt.name, at, keys); s.Signed != tt.left+1 {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
}

// TestNoOutage: a writer that was killed in this boot, and one that closed the stream in an earlier one, leave no such gap.
func TestNoOutage(t *testing.T) {
	key, _ := signingKey(t)
	root := writtenAt(t, key, "boot-1", stream.Options{})
	w := openSigned(t, root, stream.AtBoot(stream.Options{Key: key}, "boot-1"))
	if !w.Recovered().IsZero() || w.Seq() != 8 {
		t.Errorf("killed: %+v", w.Recovered())
	}
	closeSigned(t, w)
	w = openSigned(t, root, stream.AtBoot(stream.Options{Key: key}, "boot-2"))
	if !w.Recovered().IsZero() {
		t.Errorf("closed: %+v", w.Recovered())
	}
	closeSigned(t, w)
}

// TestAbandoned: what a node has left open that went down is closed, once.
func TestAbandoned(t *testing.T) {
	key, keys := signingKey(t)
	dir := stream.Dir(writtenAt(t, key, "boot-1", stream.Options{Synced: true}), signedID)
	root := filepath.Dir(filepath.Dir(dir))
	at := func(boot string) stream.Options { return stream.AtBoot(stream.Options{Key: key}, boot) }
	if closed, err := stream.CloseAbandonedAt(dir, at("boot-1")); closed || err != nil {
		t.Errorf("in the same boot: %v, %v", closed, err)
	}
	if s := proven(t, "left open", root, keys); s.State != verify.Open {
		t.Errorf("left open: %+v", s)
	}
	closed, err := stream.CloseAbandonedAt(dir, at("boot-2"))
	if !closed || err != nil {
		t.Errorf("in the next one: %v, %v", closed, err)
	}
	if s := proven(t, "closed", root, keys); s.State != verify.Closed || s.Signed != 9 || s.Openings != 2 {
		t.Errorf("closed: %+v", s)
	}
	last := lastRecords(t, root)[0]
	if l := last.Event.Loss; l == nil || l.Reason != audit.LossNode || l.FlushInterval != 0 || last.Identity != signedID {
		t.Errorf("the loss: %+v", last)
	}
	for _, boot := range []string{"boot-2", "boot-3"} {
		if closed, err := stream.CloseAbandonedAt(dir, at(boot)); closed || err != nil {
			t.Errorf("again in %s: %v, %v", boot, closed, err)
		}
	}
	w := openSigned(t, root, at("boot-2"))
	defer closeSigned(t, w)
	if closed, err := stream.CloseAbandonedAt(dir, at("boot-3")); closed || err != nil {
		t.Errorf("while somebody has it: %v, %v", closed, err)
	}
	unsigned := t.TempDir()
	closeSigned(t, openSigned(t, unsigned, stream.Options{}))
	if closed, err := stream.CloseAbandonedAt(stream.Dir(unsigned, signedID), at("boot-3")); closed || err != nil {
		t.Errorf("unsigned: %v, %v", closed, err)
	}
}

// TestAllAbandoned: the first that looks in a boot closes all, and the others need not look.
func TestAllAbandoned(t *testing.T) {
	key, keys := signingKey(t)
	root := writtenAt(t, key, "boot-1", stream.Options{})
	at := func(boot string) stream.Options { return stream.AtBoot(stream.Options{Key: key}, boot) }
	for _, tt := range []struct {
		boot string
		want int
	}{{"boot-1", 0}, {"boot-1", 0}, {"boot-2", 1}, {"boot-2", 0}, {"boot-3", 0}} {
		closed, err := stream.CloseAllAbandonedAt(root, at(tt.boot))
		if err != nil || len(closed) != tt.want {
			t.Errorf("%s: closed %v, %v; want %d", tt.boot, closed, err, tt.want)
		}
	}
	if s := proven(t, "closed", root, keys); s.State != verify.Closed {
		t.Errorf("%+v", s)
	}
	if closed, err := stream.CloseAllAbandonedAt(filepath.Join(root, "none"), at("boot-1")); closed != nil || err != nil {
		t.Errorf("without streams: %v, %v", closed, err)
	}
}

// TestAbandonedWithoutRecords: there is nothing to say whose the loss would be.
func TestAbandonedWithoutRecords(t *testing.T) {
	key, keys := signingKey(t)
	live := t.TempDir()
	w := openSigned(t, live, stream.AtBoot(stream.Options{Key: key}, "boot-1"))
	root := copyTree(t, live)
	closeSigned(t, w)
	if closed, err := stream.CloseAbandonedAt(stream.Dir(root, signedID), stream.AtBoot(stream.Options{Key: key}, "boot-2")); !closed || err != nil {
		t.Errorf("%v, %v", closed, err)
	}
	if s := proven(t, "closed", root, keys); s.State != verify.Closed || s.Records != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAbandonedBehindCompressed: the last record is in a segment that retention had compressed before its container was started again.
func TestAbandonedBehindCompressed(t *testing.T) {
	key, _ := signingKey(t)
	live := t.TempDir()
	o := stream.AtBoot(stream.Options{Key: key}, "boot-1")
	w := openSigned(t, live, o)
	add(t, w, oom(1))
	closeSigned(t, w)
	first := filepath.Join(stream.Dir(live, signedID), stream.SegmentName(1))
	packed := bytes.Repeat([]byte{'z', '\n'}, 2000) // nothing of it is a line
	if err := errors.Join(os.WriteFile(first+stream.CompressedSuffix, packed, 0o600), os.Remove(first)); err != nil {
		t.Fatal(err)
	}
	w = openSigned(t, live, o)
	root := copyTree(t, live)
	closeSigned(t, w)
	if closed, err := stream.CloseAbandonedAt(stream.Dir(root, signedID), stream.AtBoot(stream.Options{Key: key}, "boot-2")); !closed || err != nil {
		t.Errorf("%v, %v", closed, err)
	}
}
