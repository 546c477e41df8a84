// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/guest/channel"
)

func TestTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	ago := func(d time.Duration) time.Time { return at.Add(-d) }
	tests := []struct {
		name        string
		time, until time.Time // zero until: one call
		want, last  time.Time
	}{
		{"now", at, time.Time{}, at, time.Time{}},
		{"waited", ago(maxBehind), time.Time{}, ago(maxBehind), time.Time{}},
		{"too old", ago(maxBehind + 1), time.Time{}, at, time.Time{}},
		{"a little ahead", ago(-maxAhead), time.Time{}, ago(-maxAhead), time.Time{}},
		{"too far ahead", ago(-maxAhead - 1), time.Time{}, at, time.Time{}},
		{"year 1", time.Time{}, time.Time{}, at, time.Time{}},
		{"several", ago(3), ago(2), ago(3), ago(2)},
		{"several, the last too far ahead", ago(3), ago(-maxAhead - 1), ago(3), at},
		{"several, backwards", ago(3), ago(4), ago(3), at},
		{"several, all too old", ago(time.Hour), ago(time.Hour), at, at},
		{"several, all ahead", ago(-time.Hour), ago(-time.Hour), at, at},
		{"several, begun ahead", ago(-maxAhead), at, ago(-maxAhead), ago(-maxAhead)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ev := &audit.Event{Time: tt.time, Syscall: &audit.Syscall{Until: tt.until}}
			if !tt.until.IsZero() {
				ev.Syscall.Count = 2
			}
			settleTime(ev, at)
			if !ev.Time.Equal(tt.want) || !ev.Syscall.Until.Equal(tt.last) {
				t.Errorf("got %s to %s, want %s to %s", ev.Time, ev.Syscall.Until, tt.want, tt.last)
			}
		})
	}
}

// FuzzReadEvent: what is taken can be written, is of nobody, and is what a resident may tell.
func FuzzReadEvent(f *testing.F) {
	f.Add(event(1, nil).Record, uint64(0))
	f.Add(event(1, func(ev *audit.Event) {
		ev.Syscall.Verdict, ev.Syscall.Count, ev.Syscall.Until = audit.VerdictDenied, 3, ev.Time
	}).Record, uint64(3))
	loss := audit.Event{Time: time.Unix(1, 0), Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 2}}
	f.Add(loss.AppendJSON(nil, &audit.Identity{}, 1), uint64(2))
	f.Add(loss.AppendJSON(nil, &audit.Identity{Pod: "p"}, 1), uint64(0))
	f.Fuzz(func(t *testing.T, line []byte, folded uint64) {
		at := time.Now()
		ev, err := readEvent(item{event: channel.Event{Seq: 1, Folded: folded, Record: line}, at: at})
		if err != nil {
			return
		}
		again, err := record.ParseStrict(ev.AppendJSON(nil, &audit.Identity{}, 1))
		if err != nil {
			t.Fatalf("%q is taken and cannot be written: %v", line, err)
		}
		if (ev.Syscall == nil) == (ev.Loss == nil) || ev.Time.After(at.Add(maxAhead)) || ev.Time.Before(at.Add(-maxBehind)) {
			t.Fatalf("%q is taken as %+v", line, again)
		}
	})
}

// TestStream writes into a real stream and reads it back.
func TestStream(t *testing.T) {
	const events = 500
	id := audit.Identity{Namespace: "n", Pod: "p", PodUID: "u", Container: "c", ContainerID: "i"}
	dir := stream.Dir(t.TempDir(), id)
	w, err := stream.OpenWriter(dir, id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := setUp(t, func(g *guest) {
		g.armed()
		go func() {
			for i := uint64(1); i <= events && g.say(event(i, nil)); i++ {
			}
		}()
		for m := g.hear(); m != nil; m = g.hear() {
			if ack, ok := m.(channel.Ack); ok && ack.Seq == events {
				break
			}
		}
	}, func(c *Config) { c.Sink = w })
	s.r.grace = patience
	s.mustLaunch()
	s.mustArm()
	<-s.r.gone
	if err := s.r.Ended(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := segment.OpenReader(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got, want []string
	for i := range events {
		want = append(want, fmt.Sprint("/", i+1, " of p"))
		line, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		rec, err := record.ParseStrict(line)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec.Event.Syscall.Args[0].Value+" of "+rec.Identity.Pod)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkEvent is an event on its way from the resident's write to its acknowledgement, without a VM between.
func BenchmarkEvent(b *testing.B) {
	started, done := make(chan struct{}), make(chan error, 1)
	n := 0
	d := &delegate{script: func(g *guest) {
		g.ready()
		<-started
		for i := range n {
			m := event(uint64(i+1), nil)
			g.say(m)
			if _, ok := g.hear().(channel.Ack); !ok {
				done <- fmt.Errorf("event %d was not acknowledged", i+1)
				return
			}
		}
		done <- nil
		g.serve()
	}}
	id := audit.Identity{Namespace: "n", Pod: "p"}
	w, err := stream.OpenWriter(stream.Dir(b.TempDir(), id), id, stream.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	d.r, err = New(Config{
		Container: "c", Helper: "/.metsuke-0123/guest", ExecID: "x", Dir: b.TempDir(), Invoke: d.invoke, Sink: w,
		Start:  channel.Start{Program: bytes.Repeat([]byte("p"), 9), Ordered: true, Credit: channel.MaxRecord},
		OnLoss: func(l audit.Loss) { b.Error(l) }, OnKillInit: func() {},
	})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := d.r.Launch(b.Context()); err != nil {
		b.Fatal(err)
	}
	n = b.N
	b.ReportAllocs()
	b.ResetTimer()
	close(started)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := d.r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
