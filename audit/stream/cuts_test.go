// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"testing"

	"metsuke.dev/metsuke/audit"
)

// TestKeptBeforeCuts: what is on the disk is not told to be gone, however often the stream was cut since.
func TestKeptBeforeCuts(t *testing.T) {
	w := open(t, t.TempDir(), Options{Synced: true, FlushInterval: never})
	bad := failing(w)
	var tickets []audit.Ticket
	for i := range 3 {
		put, err := w.Put(call(i), 0)
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, put)
		bad.Store(i == 1)
		if err := w.Append(call(9)); (err != nil) != (i == 1) {
			t.Fatal(err)
		}
	}
	bad.Store(true)
	for range 2 * maxSpans {
		if err := w.Append(call(9)); err == nil {
			t.Fatal("it is on the disk")
		}
	}
	bad.Store(false)
	for i, ticket := range tickets {
		if err := w.Commit(ticket); (err != nil) != (i == 1) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}
