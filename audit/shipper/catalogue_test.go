// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/stream"
)

// TestCatalogue: what is found of streams that come, grow and go, and of what is no stream.
func TestCatalogue(t *testing.T) {
	n := newNode(t)
	c := newCatalogue(n.root)
	list := func() ([]extent, int64, bool) {
		t.Helper()
		_, _, changed := c.list(nil)
		for range slowLooks {
			if err := c.look(); err != nil {
				t.Fatal(err)
			}
		}
		all, ledger, _ := c.list(nil)
		return all, ledger, isClosed(changed)
	}
	if all, _, changed := list(); len(all) != 0 || changed {
		t.Errorf("without a root: %v", all)
	}
	a := n.open("a", stream.Options{SegmentBytes: 8 << 10})
	write(t, a, 1)
	b := n.open("b", stream.Options{})
	all, ledger, changed := list()
	if len(all) != 2 || all[0].path != path("a") || all[0].end.Segment != 1 || all[0].end.Offset == 0 || len(all[0].id) != 32 ||
		all[1].end != (stream.Position{Segment: 1}) || ledger == 0 || !changed {
		t.Fatalf("%+v, %d, %v", all, ledger, changed)
	}
	if _, _, changed := list(); changed {
		t.Error("nothing has changed")
	}
	write(t, a, 100)
	write(t, b, 1)
	all, _, changed = list()
	if segments, _ := stream.Segments(n.dir("a")); all[0].end.Segment != len(segments) || all[1].end.Offset == 0 || !changed {
		t.Errorf("%+v, %v", all, changed)
	}
	if err := os.Symlink(n.dir("b"), filepath.Join(filepath.Dir(n.dir("b")), "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(n.dir("a"))); err != nil {
		t.Fatal(err)
	}
	if all, _, changed := list(); len(all) != 1 || all[0].path != path("b") || !changed {
		t.Errorf("%+v, %v", all, changed)
	}
	if err := os.RemoveAll(n.root); err != nil {
		t.Fatal(err)
	}
	if all, ledger, changed := list(); len(all) != 0 || ledger != 0 || !changed {
		t.Errorf("%+v, %v", all, changed)
	}
}

// TestClockJumps: streams are found and followed whatever the clock says.
func TestClockJumps(t *testing.T) {
	n := newNode(t)
	c := newCatalogue(n.root)
	for i, jump := range []time.Duration{0, -time.Hour, 1000 * time.Hour, -10 * time.Hour} {
		c.now = func() time.Time { return time.Now().Add(jump) }
		pod := string(rune('a' + i))
		w := n.open(pod, stream.Options{})
		var size int64
		for range 3 {
			write(t, w, 1)
			for range slowLooks {
				if err := c.look(); err != nil {
					t.Fatal(err)
				}
			}
			all, _, _ := c.list(nil)
			if len(all) != i+1 || all[i].end.Offset <= size {
				t.Fatalf("after %s: %+v", jump, all)
			}
			size = all[i].end.Offset
		}
	}
}

// TestRootIsALink: it is followed, as it is for who writes there.
func TestRootIsALink(t *testing.T) {
	n := newNode(t)
	link := n.root + "-link"
	if err := os.Symlink(n.root, link); err != nil {
		t.Fatal(err)
	}
	c := newCatalogue(link)
	for i := range 3 {
		n.open(string(rune('a'+i)), stream.Options{})
		for range slowLooks {
			if err := c.look(); err != nil {
				t.Fatal(err)
			}
		}
		if all, _, _ := c.list(nil); len(all) != i+1 {
			t.Fatalf("%d streams, %d are found", i+1, len(all))
		}
		time.Sleep(2 * settle) // so that what is seen next is new
	}
}
