// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/status"
)

// The stream of a container that is deleted ends with its totals; that of a pod whose delegate is gone does not.
func TestEndRecord(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		dir, id := filepath.Join(t.TempDir(), "pod", "c"), audit.Identity{Container: "c"}
		c := &container{init: &initProcess{}}
		var err error
		if c.stream, err = stream.OpenWriter(dir, id, stream.Options{Appended: c.tally.Add}); err != nil {
			t.Fatal(err)
		}
		call := &audit.Syscall{Verdict: audit.VerdictAllowed}
		folded := &audit.Syscall{Verdict: audit.VerdictDenied, Count: 5, Until: time.Unix(2, 0)}
		for _, e := range []*audit.Event{
			{Kind: audit.KindStart, Receipt: &audit.Receipt{}}, {Kind: audit.KindSyscall, Syscall: call}, {Kind: audit.KindSyscall, Syscall: folded},
			{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossStream, Count: 3}}, {Kind: audit.KindExit, Exit: &audit.Exit{}},
		} {
			c.note(e)
		}
		written := c.stream.Bytes()
		if deleted {
			c.end()
		}
		c.close()
		line, err := segment.Last(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.ParseStrict(line)
		if err != nil {
			t.Fatal(err)
		}
		want := audit.End{Records: 5, Bytes: written, Calls: 6, Denied: 5, Losses: 1, Missing: 3}
		switch {
		case !deleted && r.Event.Kind != audit.KindExit:
			t.Errorf("not deleted: the last record is %s", line)
		case deleted && (r.Event.End == nil || *r.Event.End != want):
			t.Errorf("deleted: the last record is %s, want %+v", line, want)
		}
	}
}

// The record of a shim's death is signed with the key that the shim had, and is there without it.
func TestRecordDeathSigned(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "key.pem")
	key, err := signature.LoadOrMake(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "audit", "pod", "c")
	w, err := stream.OpenWriter(dir, audit.Identity{Container: "c"}, stream.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(&audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	die := func(key string) error {
		raw, err := json.Marshal(status.Owner{Stream: dir, Key: key, Identity: audit.Identity{Container: "c"}})
		if err != nil {
			t.Fatal(err)
		}
		return recordDeath(t.Context(), &bootstrap.Deletion{ID: "c", Lost: true, Record: &bootstrap.Record{Owner: raw}})
	}
	if err := die(path); err != nil {
		t.Fatal(err)
	}
	if s, err := verify.Dir(dir, signature.Ring{key.Public}); err != nil || s.Signed != 2 || s.State != verify.Closed {
		t.Errorf("%+v, %v", s, err)
	}
	if err := die(path + "-gone"); err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("without its key: %v", err)
	}
	if n, err := segment.CheckChain(dir); n != 3 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	if s, err := verify.Dir(dir, signature.Ring{key.Public}); err != nil || s.Verdict() != verify.Fault {
		t.Errorf("a record behind the close: %+v, %v", s, err)
	}
}
