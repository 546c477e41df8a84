// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
)

var smallSegments = stream.Options{SegmentBytes: 4000}

// replace removes a stream, and makes one of the same name.
func (n *node) replace(pod string, old *stream.Writer, records int) {
	n.t.Helper()
	if err := old.Close(); err != nil {
		n.t.Fatal(err)
	}
	if err := os.RemoveAll(n.dir(pod)); err != nil {
		n.t.Fatal(err)
	}
	w := n.open(pod, smallSegments)
	for i := range records {
		if err := w.Append(call(1000 + i)); err != nil {
			n.t.Fatal(err)
		}
	}
}

// A stream that was made anew, and has grown beyond where the old one was confirmed, is shipped from its beginning.
func TestMadeAnewAndLonger(t *testing.T) {
	for name, sign := range map[string]bool{"signed": true, "not signed": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			if !sign {
				n.key = nil
			}
			w := n.open("a", smallSegments)
			write(t, w, 40)
			n.once(to("x", &far{}))
			n.replace("a", w, 90)
			f := &far{}
			n.once(to("x", f))
			if !n.same(f, "a") {
				t.Errorf("%d records of %d", len(f.records(path("a"))), len(n.lines("a")))
			}
		})
	}
}

// The same while a sink stalls, and the shipper runs.
func TestMadeAnewMeanwhile(t *testing.T) {
	n := newNode(t)
	w := n.open("a", smallSegments)
	write(t, w, 40)
	stalled, goOn := make(chan struct{}), make(chan struct{})
	f := &far{}
	stall := sync.OnceFunc(func() { close(stalled); <-goOn })
	f.answer = func(_ context.Context, batch []sink.Record) error {
		if slices.ContainsFunc(batch, func(r sink.Record) bool { return r.Stream == path("b") }) {
			stall()
		}
		return nil
	}
	n.start(to("x", f))
	eventually(t, "shipped", func() bool { return n.same(f, "a") })
	write(t, n.open("b", stream.Options{}), 1)
	<-stalled
	n.replace("a", w, 90)
	close(goOn)
	eventually(t, "the new one is shipped", func() bool { return len(f.records(path("a"))) == 40+90 })
}

// No checkpoint says of a stream that was made anew that records are confirmed which were not sent.
func TestCheckpointOfMadeAnew(t *testing.T) {
	n := newNode(t)
	w := n.open("b", smallSegments)
	write(t, w, 40)
	n.once(to("x", &far{}))
	n.replace("b", w, 20)
	write(t, n.open("a", stream.Options{}), 200) // fills batches before it
	ctx, cancel := context.WithCancel(t.Context())
	f := &far{answer: func(context.Context, []sink.Record) error { cancel(); return nil }}
	if err := Run(ctx, n.options(to("x", f))); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Load(n.marks, "x")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Confirmed(path("b"), streamID(n.dir("b"))); got > uint64(len(f.records(path("b")))) {
		t.Errorf("%d of it were sent, and %d are confirmed", len(f.records(path("b"))), got)
	}
}

// Streams that are removed by the thousand make no batch larger than it may be, and each counts.
func TestManyGone(t *testing.T) {
	n := newNode(t)
	f := &far{}
	o := n.options()
	w, err := newWorker(&o, to("x", f), newCatalogue(n.root), make(chan struct{}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		w.drop(fmt.Sprint("p/", i), &cursor{end: stream.Position{Segment: 1, Offset: 1}})
	}
	if err := w.run(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := len(f.statements(sink.KindGap)); got != 250 || f.batches != 3 {
		t.Errorf("%d came in %d batches", got, f.batches)
	}
	if got := n.counter("metsuke_ship_lost_records_total", "x", "removed"); got != 250 {
		t.Errorf("counted: %v", got)
	}
}
