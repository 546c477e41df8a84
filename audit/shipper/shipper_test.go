// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
)

// TestShipsAll: what was there, what comes, and streams that come, over many segments, each record once and in order, with its chain as its id.
func TestShipsAll(t *testing.T) {
	n := newNode(t)
	before := n.open("before", stream.Options{SegmentBytes: 8 << 10})
	write(t, before, 300)
	f := &far{}
	stop := n.start(to("lake", f))
	eventually(t, "what was there", func() bool { return n.same(f, "before") })
	write(t, before, 50)
	during := n.open("during", stream.Options{SegmentBytes: 8 << 10})
	write(t, during, 200)
	eventually(t, "what came", func() bool { return n.same(f, "before") && n.same(f, "during") })
	stop()
	for _, r := range f.got {
		if r.Seq > 0 && (!strings.HasSuffix(string(r.Line), `,"chain":"`+r.ID+`"}`) || r.Identity.Pod == "" || r.Time.IsZero() || r.Verdict == "") {
			t.Fatalf("%+v", r)
		}
		if f.ids[r.ID] != 1 {
			t.Errorf("%s came %d times", r.Line, f.ids[r.ID])
		}
	}
	if !f.closed || f.largest > 64<<10 {
		t.Errorf("closed: %v; the largest batch has %d bytes", f.closed, f.largest)
	}
	if got := n.counter("metsuke_ship_records_total", "lake"); got != 550 {
		t.Errorf("%v records are counted", got)
	}
	c, err := checkpoint.Load(n.marks, "lake")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Confirmed(path("before"), streamID(n.dir("before"))); got != 350 {
		t.Errorf("confirmed up to %d", got)
	}
	if b, err := Measure(n.root, c); err != nil || b != (Backlog{}) {
		t.Errorf("%+v, %v", b, err)
	}
	// Another life: nothing comes again.
	again := &far{}
	n.once(to("lake", again))
	if len(again.got) != 0 {
		t.Errorf("%d came again, the first is %s", len(again.got), again.got[0].Line)
	}
}

// TestSignedStatements: heads and the ledger arrive as they were signed.
func TestSignedStatements(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{})
	write(t, w, 3)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := &far{}
	n.once(to("lake", f))
	ring := signature.Ring{n.key.Public}
	cut := func(statement string) []byte {
		_, object, ok := strings.Cut(statement, `,"signed":`)
		if !ok || !json.Valid([]byte(statement)) || !strings.Contains(statement, `"node":"worker-1"`) {
			t.Fatalf("%s", statement)
		}
		return []byte(strings.TrimSuffix(object, "}") + "\n")
	}
	heads, lines := f.statements(sink.KindHead), f.statements(sink.KindLedger)
	if len(heads) != 1 || len(lines) != 2 {
		t.Fatalf("%d heads, %d lines of the ledger", len(heads), len(lines))
	}
	if _, err := ring.Check("metsuke head 1", cut(heads[0])); err != nil || !strings.Contains(heads[0], `"at":{"seq":3,`) {
		t.Errorf("%s: %v", heads[0], err)
	}
	var all []byte
	for _, line := range lines {
		all = append(all, cut(line)...)
	}
	in := journal.NewReader(strings.NewReader(string(all)), ledger.Context, ring)
	for range lines {
		if err := in.Next(&ledger.Entry{}); err != nil {
			t.Error(err)
		}
	}
}

// TestBlockedSink: one that hangs, and one that fails, hold up no other; then both get everything.
func TestBlockedSink(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{})
	write(t, w, 500)
	release, failing := make(chan struct{}), make(chan struct{})
	blocked := &far{answer: func(ctx context.Context, _ []sink.Record) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	fails := &far{answer: func(context.Context, []sink.Record) error {
		if isClosed(failing) {
			return nil
		}
		return errors.New("no route to host")
	}}
	good := &far{}
	n.start(to("blocked", blocked), to("fails", fails), to("good", good))
	eventually(t, "the good one", func() bool { return n.same(good, "a") })
	write(t, w, 500)
	eventually(t, "the good one, again", func() bool { return n.same(good, "a") })
	eventually(t, "a retry", func() bool { return n.counter("metsuke_ship_retries_total", "fails") > 1 })
	if len(blocked.records(path("a"))) != 0 || len(fails.records(path("a"))) != 0 {
		t.Error("the others have something")
	}
	close(release)
	close(failing)
	eventually(t, "the others", func() bool { return n.same(blocked, "a") && n.same(fails, "a") })
}

// TestStopsInTime: a sink that hangs is left after a moment, and what it has confirmed is in its checkpoint.
func TestStopsInTime(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{})
	write(t, w, 150)
	hangs := make(chan struct{})
	f := &far{}
	f.answer = func(ctx context.Context, batch []sink.Record) error {
		if slices.ContainsFunc(batch, func(r sink.Record) bool { return r.Seq > 100 }) {
			close(hangs)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	stop := n.start(to("lake", f))
	<-hangs
	stop()
	c, err := checkpoint.Load(n.marks, "lake")
	if err != nil {
		t.Fatal(err)
	}
	if seq := c.Marks[path("a")].Seq; seq == 0 || seq > 100 || seq != uint64(len(f.records(path("a")))) {
		t.Errorf("confirmed up to %d, of %d", seq, len(f.records(path("a"))))
	}
}

// TestFairness: who floods delays another one's denial by little: it is in the first batch.
func TestFairness(t *testing.T) {
	n := newNode(t)
	flood := n.open("a-flood", stream.Options{})
	write(t, flood, 5000)
	quiet := n.open("quiet", stream.Options{})
	write(t, quiet, 1)
	f := &far{}
	d := to("lake", f)
	d.Config.Batch = config.Batch{Records: 10_000, Bytes: 256 << 10}
	f.answer = func(_ context.Context, batch []sink.Record) error {
		if f.batches == 0 && !slices.ContainsFunc(batch, func(r sink.Record) bool { return r.Stream == path("quiet") && r.Seq == 1 }) {
			t.Error("the first batch is one stream's")
		}
		return nil
	}
	n.once(d)
	if !n.same(f, "a-flood") || f.batches < 2 {
		t.Errorf("not all came, or in %d batches", f.batches)
	}
}

// TestSecondShipper: two do not share checkpoints.
func TestSecondShipper(t *testing.T) {
	n := newNode(t)
	if err := os.MkdirAll(n.marks, 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(n.marks)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), n.options(to("lake", &far{}))); err == nil {
		t.Error("a second one runs")
	}
	unlock()
	n.once(to("lake", &far{}))
}

// TestBadCheckpoint: the shipper says so, and does not begin anew, which would send everything again, nor pass anything over.
func TestBadCheckpoint(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 1)
	n.once(to("lake", &far{}))
	if err := os.Truncate(n.marks+"/lake.checkpoint", 10); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), n.options(to("lake", &far{}))); err == nil || !strings.Contains(err.Error(), "lake.checkpoint") {
		t.Errorf("%v", err)
	}
}

// TestOCSF: a record is an event, and a denied call a second one, with an id of its own.
func TestOCSF(t *testing.T) {
	n := newNode(t)
	write(t, n.open("a", stream.Options{}), 3)
	f := &far{}
	d := to("lake", f)
	d.Config.Form = config.FormOCSF
	n.once(d)
	if len(f.got) != 5 || len(f.ids) != 5 || len(f.statements(sink.KindLedger)) != 0 {
		t.Fatalf("%d events, %d ids", len(f.got), len(f.ids))
	}
	for _, r := range f.got {
		var e struct {
			Class    int `json:"class_uid"`
			Unmapped struct{ Chain string }
		}
		if err := json.Unmarshal(r.Line, &e); err != nil {
			t.Fatal(err)
		}
		if finding := strings.HasSuffix(r.ID, findingSuffix); finding != (e.Class == 2004) || strings.TrimSuffix(r.ID, findingSuffix) != e.Unmapped.Chain {
			t.Errorf("%s: %s", r.ID, r.Line)
		}
	}
}
