// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"errors"
	"os"
	"testing"

	"metsuke.dev/metsuke/audit/stream"
)

// Damage at the end of a stream is told, although no record comes behind it, and once.
func TestDamageAtTheEnd(t *testing.T) {
	n := newNode(t)
	w := n.open("a", stream.Options{})
	write(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := stream.Segments(n.dir("a"))
	file, err := os.OpenFile(segments[0].Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("no record\n"); errors.Join(err, file.Close()) != nil {
		t.Fatal(err)
	}
	f := &far{}
	n.once(to("x", f))
	n.once(to("x", f))
	if g := gaps(t, f); len(g) != 1 || g[0].Reason != "damaged" || g[0].After != 10 || g[0].Before != 0 || g[0].Bytes != 10 {
		t.Errorf("%+v", g)
	}
}

// A last segment that cannot be read is told too.
func TestUnreadableAtTheEnd(t *testing.T) {
	n := newNode(t)
	w := n.open("a", smallSegments)
	write(t, w, 30)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := stream.Segments(n.dir("a"))
	last := segments[len(segments)-1].Path
	if err := errors.Join(os.WriteFile(last+stream.CompressedSuffix, []byte("no Zstandard"), 0o600), os.Remove(last)); err != nil {
		t.Fatal(err)
	}
	f := &far{}
	n.once(to("x", f))
	if g := gaps(t, f); len(g) != 1 || g[0].Reason != "damaged" || g[0].After == 0 || g[0].Before != 0 {
		t.Errorf("%+v", g)
	}
}
