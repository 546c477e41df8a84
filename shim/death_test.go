// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/status"
)

// The stream of a container whose shim died tells of it, with the denials that were folded and in no record.
func TestRecordDeath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pod", "c")
	id := audit.Identity{Container: "c"}
	w, err := stream.OpenWriter(dir, id, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	start := &audit.Event{Time: time.Now(), Kind: audit.KindStart, Receipt: &audit.Receipt{}}
	if err := w.Append(start); err != nil {
		t.Fatal(err)
	}
	if err := w.Fold(7); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(status.Owner{Stream: dir, Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	records := func() string {
		t.Helper()
		r, err := segment.OpenReader(dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var all strings.Builder
		for {
			line, err := r.Next()
			if err != nil {
				return all.String()
			}
			all.Write(line)
		}
	}
	for _, d := range []*bootstrap.Deletion{
		{ID: "c", Record: &bootstrap.Record{Owner: raw}}, // deleted in order
		{ID: "c", Lost: true},                            // nothing is known of it
		{ID: "c", Lost: true, Record: &bootstrap.Record{Owner: json.RawMessage(`{"cgroup":"/x"}`)}}, // it has no stream
	} {
		if err := recordDeath(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(records(), "loss") {
			t.Fatalf("%+v: a loss is recorded", d)
		}
	}
	if err := recordDeath(t.Context(), &bootstrap.Deletion{ID: "c", Lost: true, Record: &bootstrap.Record{Owner: raw}}); err != nil {
		t.Fatal(err)
	}
	if got := records(); !strings.Contains(got, `"kind":"loss","reason":"shim-died","count":7`) {
		t.Errorf("records:\n%s", got)
	}
	if n, err := segment.CheckChain(dir); n != 2 || err != nil {
		t.Errorf("chain: %d %v", n, err)
	}
	broken := &bootstrap.Deletion{ID: "c", Lost: true, Record: &bootstrap.Record{Owner: json.RawMessage(`[]`)}}
	if err := recordDeath(t.Context(), broken); err == nil {
		t.Error("a record that cannot be read is no error")
	}
}
