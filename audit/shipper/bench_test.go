// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
)

// FuzzTake: whatever a line of a stream holds, what is shipped of it is lines of JSON.
func FuzzTake(f *testing.F) {
	golden, err := os.ReadFile("../testdata/records.ndjson")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(golden) {
		f.Add(line)
		chained := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("}"))
		f.Add(fmt.Appendf(nil, "%s,\"chain\":\"%064d\"}\n", chained, 7))
	}
	f.Add([]byte("{\r\t}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, form := range []config.Form{config.FormJSON, config.FormOCSF} {
			b := &batch{form: form, limit: config.Batch{Records: 10, Bytes: 1 << 20}}
			c := newCursor("a/b", checkpoint.Mark{Seq: 9})
			var s source
			s.take(c, b, line)
			for _, r := range b.records {
				if !json.Valid(r.Line) || !isInert(r.Line) || len(r.ID) < 64 || r.Identity == nil {
					t.Fatalf("%+v\n%s", r, r.Line)
				}
			}
			if (len(b.records) == 0) != c.damaged.found {
				t.Fatalf("%d records, damage %v", len(b.records), c.damaged)
			}
		}
	})
}

type takesAll struct{}

func (takesAll) Send(context.Context, []sink.Record) error { return nil }
func (takesAll) Check(context.Context) error               { return nil }
func (takesAll) Close(context.Context) error               { return nil }

// BenchmarkShip is one record of 15 streams, to a sink that takes all at once.
func BenchmarkShip(b *testing.B) {
	for _, form := range []config.Form{config.FormJSON, config.FormOCSF} {
		b.Run(string(form), func(b *testing.B) {
			n := newNode(b)
			for i := range 15 {
				write(b, n.open(fmt.Sprint("pod-", i), stream.Options{}), b.N/15+1)
			}
			d := to("all", takesAll{})
			d.Config.Form, d.Config.Batch = form, config.Batch{Records: 1000, Bytes: 1 << 20}
			b.ReportAllocs()
			b.ResetTimer()
			n.once(d)
		})
	}
}

// BenchmarkLook is a look at 5000 streams, of which ten grow. Four a second are made, and three of these pass over those that rest.
func BenchmarkLook(b *testing.B) {
	n := newNode(b)
	for i := range 4990 {
		dir := n.dir(fmt.Sprint("dead-", i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "00000001.ndjson"), []byte("x\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	c := newCatalogue(n.root)
	for range 2 * slowLooks {
		if err := c.look(); err != nil {
			b.Fatal(err)
		}
	}
	c.now = func() time.Time { return time.Now().Add(time.Hour) } // they rest
	for range 2 * slowLooks {
		if err := c.look(); err != nil {
			b.Fatal(err)
		}
	}
	var live []*stream.Writer
	for i := range 10 {
		live = append(live, n.open(fmt.Sprint("live-", i), stream.Options{}))
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range live {
			write(b, w, 1)
		}
		if err := c.look(); err != nil {
			b.Fatal(err)
		}
	}
}
