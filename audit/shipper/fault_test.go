// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/segment/seekable"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
)

type gapStatement struct {
	Kind, Pod, Stream, Reason, Chain, Detail string
	After, Before, Count                     uint64
	Bytes                                    int64
}

func gaps(t testing.TB, f *far) (all []gapStatement) {
	t.Helper()
	for _, line := range f.statements(sink.KindGap) {
		var g gapStatement
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, g)
	}
	return all
}

// poison tells whether a batch has a record that the far side does not take.
func poison(batch []sink.Record) bool {
	return slices.ContainsFunc(batch, func(r sink.Record) bool { return r.Seq%70 == 7 })
}

// TestPoison: records that a sink refuses, whether it says which or not, and in whatever else goes wrong, are given up and told; all others arrive.
func TestPoison(t *testing.T) {
	refuse := func(batch []sink.Record, rest error) error {
		e := &sink.RefusedError{Rest: rest}
		for i, r := range batch {
			if poison([]sink.Record{r}) {
				e.Refusals = append(e.Refusals, sink.Refusal{Index: i, Reason: sink.TooLarge, Err: errors.New("no")})
			}
		}
		return e
	}
	attempts := 0
	for name, answer := range map[string]func([]sink.Record) error{
		"named":                     func(batch []sink.Record) error { return refuse(batch, nil) },
		"unnamed":                   func([]sink.Record) error { return &sink.BatchError{Reason: sink.TooLarge, Err: errors.New("no")} },
		"named, and the rest fails": func(batch []sink.Record) error { return refuse(batch, errors.New("broken pipe")) },
		"at the third attempt": func(batch []sink.Record) error {
			if attempts++; attempts%3 != 0 {
				return errors.New("broken pipe")
			}
			return refuse(batch, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			write(t, n.open("a", stream.Options{}), 200)
			f := &far{answer: func(_ context.Context, batch []sink.Record) error {
				if poison(batch) {
					return answer(batch)
				}
				return nil
			}}
			n.once(to("lake", f))
			all := n.lines("a")
			want := slices.Concat(all[:6], all[7:76], all[77:146], all[147:])
			if got := f.records(path("a")); !slices.Equal(got, want) {
				t.Errorf("%d records came, %d should", len(got), len(want))
			}
			told := gaps(t, f)
			for i, seq := range []uint64{7, 77, 147} {
				if len(told) != 3 || told[i].After != seq-1 || told[i].Before != seq+1 || told[i].Count != 1 || told[i].Reason != "too-large" ||
					told[i].Stream != path("a") || told[i].Detail != "no" || !strings.Contains(all[seq-1], told[i].Chain) {
					t.Fatalf("%+v", told)
				}
			}
			if got := n.counter("metsuke_ship_lost_records_total", "lake", "too-large"); got != 3 {
				t.Errorf("%v are counted", got)
			}
		})
	}
}

// TestRefusesAll: a far side that takes nothing, whatever it says, makes nothing lost.
func TestRefusesAll(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 200)
	attempts := 0
	f := &far{answer: func(_ context.Context, batch []sink.Record) error {
		if attempts++; attempts > 25 {
			return nil
		}
		if attempts%2 == 0 {
			return &sink.RefusedError{Refusals: []sink.Refusal{{Index: len(batch) - 1, Reason: sink.Refused, Err: errors.New("400")}}, Rest: errors.New("400")}
		}
		return &sink.BatchError{Reason: sink.Refused, Err: errors.New("400 Bad Request")}
	}}
	n.once(to("lake", f))
	if !n.same(f, "a") || len(gaps(t, f)) != 0 || n.counter("metsuke_ship_lost_records_total", "lake", "refused") != 0 {
		t.Errorf("%d of 200 came; %+v", len(f.records(path("a"))), gaps(t, f))
	}
}

// TestPartial: whatever part of batches arrives before an error, in the end all is there, and what came twice has the same id.
func TestPartial(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{SegmentBytes: 8 << 10}), 300)
	f := &far{}
	attempts := 0
	f.answer = func(_ context.Context, batch []sink.Record) error {
		if attempts++; attempts%3 == 0 {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range batch[:len(batch)*attempts%7/7] {
			f.take(r)
		}
		return errors.New("connection reset")
	}
	n.once(to("lake", f))
	if !n.same(f, "a") {
		t.Error("not all came")
	}
}

// TestCheckpointIsOld: what was sent and is not in the checkpoint is sent again, with the same ids, and nothing is missing.
func TestCheckpointIsOld(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{SegmentBytes: 8 << 10})
	write(t, w, 100)
	f := &far{}
	n.once(to("lake", f))
	file := filepath.Join(n.marks, "lake.checkpoint")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, 100)
	n.once(to("lake", f))
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, w, 100)
	n.once(to("lake", f))
	if !n.same(f, "a") {
		t.Error("not all came")
	}
	twice := 0
	for _, r := range f.got {
		if r.Seq > 0 && f.ids[r.ID] == 2 {
			twice++
		}
	}
	if twice != 200 {
		t.Errorf("%d came twice", twice)
	}
}

// TestRemoved: records that are gone before they were shipped are told, with their bounds.
func TestRemoved(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{SegmentBytes: 8 << 10})
	write(t, w, 20)
	f := &far{}
	n.once(to("lake", f))
	write(t, w, 100)
	segments, err := stream.Segments(n.dir("a"))
	if err != nil || len(segments) < 5 {
		t.Fatal(segments, err)
	}
	for _, s := range segments[:4] {
		if err := os.Remove(s.Path); err != nil {
			t.Fatal(err)
		}
	}
	n.once(to("lake", f))
	got, left := f.records(path("a")), n.lines("a")
	if !slices.Equal(got[20:], left) {
		t.Errorf("%d records came, 20 and %d should", len(got), len(left))
	}
	first := uint64(120 - len(left) + 1)
	if g := gaps(t, f); len(g) != 1 || g[0].Reason != "removed" || g[0].After != 20 || g[0].Before != first || g[0].Count != first-21 || g[0].Pod != "a" {
		t.Errorf("%+v, and %d is the first", g, first)
	}
	if lost := n.counter("metsuke_ship_lost_records_total", "lake", "removed"); lost != float64(first-21) {
		t.Errorf("%v are counted", lost)
	}
}

// TestStreamGone: a whole stream that is removed, with records that the sink does not have, is told of.
func TestStreamGone(t *testing.T) {
	n := newNode(t)
	write(t, n.open("shipped", stream.Options{}), 10)
	write(t, n.open("lost", stream.Options{}), 10)
	seen, release := make(chan struct{}), make(chan struct{})
	f := &far{answer: func(context.Context, []sink.Record) error {
		if !isClosed(seen) {
			close(seen)
			<-release
		}
		return nil
	}}
	d := to("lake", f)
	d.Config.Batch.Records = 10 // of "lost" before the turn of "shipped" ends
	n.start(d)
	<-seen
	write(t, n.open("later", stream.Options{}), 10)
	if err := os.RemoveAll(filepath.Dir(n.dir("shipped"))); err != nil {
		t.Fatal(err)
	}
	close(release)
	eventually(t, "what is left", func() bool { return n.same(f, "later") && n.same(f, "lost") })
	eventually(t, "the gap", func() bool { return len(gaps(t, f)) == 1 })
	if g := gaps(t, f)[0]; g.Stream != path("shipped") || g.Reason != "removed" || g.Before != 0 {
		t.Errorf("%+v", g)
	}
	eventually(t, "the mark's end", func() bool {
		c, err := checkpoint.Load(n.marks, "lake")
		return err == nil && c.Marks[path("later")].Seq == 10 && c.Marks[path("shipped")].Stream == ""
	})
}

// TestDamaged: bytes that are no record are told, with how many records are missing, and all others arrive.
func TestDamaged(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 100)
	all := n.lines("a")
	segments, _ := stream.Segments(n.dir("a"))
	for name, tt := range map[string]struct {
		change       func(lines []string) []string
		came         []string
		after, count uint64
	}{
		"junk between":  {func(l []string) []string { return slices.Insert(l, 40, "junk") }, all, 40, 0},
		"changed":       {func(l []string) []string { l[40] = "x" + l[40][1:]; return l }, slices.Concat(all[:40], all[41:]), 40, 1},
		"three":         {func(l []string) []string { l[40], l[41], l[42] = "{}", "{", "\x00"; return l }, slices.Concat(all[:40], all[43:]), 40, 3},
		"not UTF-8":     {func(l []string) []string { l[40] = strings.Replace(l[40], "openat", "open\xff", 1); return l }, slices.Concat(all[:40], all[41:]), 40, 1},
		"at the begin":  {func(l []string) []string { l[0] = ""; return l }, all[1:], 0, 1},
		"without chain": {func(l []string) []string { l[40] = strings.Replace(l[40], `,"chain":"`, `,"chain":"X`, 1); return l }, slices.Concat(all[:40], all[41:]), 40, 1},
	} {
		changed := strings.Join(tt.change(slices.Clone(all)), "\n") + "\n"
		if err := os.WriteFile(segments[0].Path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		f := &far{}
		n.once(to(strings.NewReplacer(" ", "-", "not-UTF-8", "utf", "UTF", "utf").Replace(name), f))
		if got := f.records(path("a")); !slices.Equal(got, tt.came) {
			t.Errorf("%s: %d records came, %d should", name, len(got), len(tt.came))
		}
		if g := gaps(t, f); len(g) != 1 || g[0].Reason != "damaged" || g[0].After != tt.after || g[0].Count != tt.count || g[0].Bytes == 0 {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

// TestCut: a stream that was cut behind what was shipped, and goes on, as after a power failure: what is new arrives.
func TestCut(t *testing.T) {
	for name, whole := range map[string]bool{"within a record": false, "between records": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			w := n.open("a", stream.Options{})
			write(t, w, 50)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			f := &far{}
			n.once(to("lake", f))
			segments, _ := stream.Segments(n.dir("a"))
			data, err := os.ReadFile(segments[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			size := int64(len(bytes.Join(bytes.SplitAfter(data, []byte("\n"))[:30], nil)))
			if !whole {
				size += 20
			}
			if err := os.Truncate(segments[0].Path, size); err != nil {
				t.Fatal(err)
			}
			w = n.open("a", stream.Options{})
			for i := range 15 {
				if err := w.Append(call(1000 + i)); err != nil {
					t.Fatal(err)
				}
			}
			n.once(to("lake", f))
			got := f.records(path("a"))
			if all := n.lines("a"); !slices.Equal(got[50:], all[30:]) || !slices.Equal(got[:30], all[:30]) {
				t.Errorf("%d came of %d, and 20 that are gone", len(got), len(all))
			}
		})
	}
}

// TestMadeAnew: a stream that was removed and made anew, at the same place, arrives from its beginning.
func TestMadeAnew(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{SegmentBytes: 8 << 10})
	write(t, w, 100)
	f := &far{}
	n.once(to("lake", f))
	if err := errors.Join(w.Close(), os.RemoveAll(n.dir("a"))); err != nil {
		t.Fatal(err)
	}
	w = n.open("a", stream.Options{})
	for i := range 10 {
		if err := w.Append(call(1000 + i)); err != nil {
			t.Fatal(err)
		}
	}
	n.once(to("lake", f))
	if got := f.records(path("a")); !slices.Equal(got[100:], n.lines("a")) {
		t.Errorf("%d came", len(got))
	}
}

// TestCompressed: it makes no difference whether a segment is compressed, also while a sink is in the middle of it.
func TestCompressed(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{})
	write(t, w, 100)
	f := &far{}
	n.once(to("lake", f))
	write(t, w, 200)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all := n.lines("a")
	segments, _ := stream.Segments(n.dir("a"))
	var packed bytes.Buffer
	if _, err := seekable.Compress(&packed, strings.NewReader(strings.Join(all, "\n")+"\n")); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.WriteFile(segments[0].Path+stream.CompressedSuffix, packed.Bytes(), 0o600), os.Remove(segments[0].Path))
	if err != nil {
		t.Fatal(err)
	}
	behind := func() Backlog {
		t.Helper()
		c, err := checkpoint.Load(n.marks, "lake")
		if err != nil {
			t.Fatal(err)
		}
		b, err := Measure(n.root, c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := behind(); b.Streams != 1 || b.Bytes != int64(len(strings.Join(all[100:], "\n"))+1) || b.Oldest.IsZero() {
		t.Errorf("%+v", b)
	}
	n.once(to("lake", f))
	for id, times := range f.ids {
		if times != 1 {
			t.Errorf("%s came %d times", id, times)
		}
	}
	if !slices.Equal(f.records(path("a")), all) || behind() != (Backlog{}) || len(gaps(t, f)) != 0 {
		t.Errorf("%d of %d came; %+v", len(f.records(path("a"))), len(all), behind())
	}
	later := &far{}
	n.once(to("later", later))
	if !slices.Equal(later.records(path("a")), all) {
		t.Errorf("%d of %d came", len(later.records(path("a"))), len(all))
	}
}
