// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"testing"
	"time"
)

// fault is something that goes wrong between two points in time.
type fault struct {
	name       string
	begin, end func()
}

// farSide is where records are shipped to, as the test sees it.
type farSide interface {
	// count is how much has arrived, roughly and quickly.
	count(t *testing.T) int64
	// arrivals is all that has arrived.
	arrivals(t *testing.T) []arrival
}

const (
	between = 300  // arrivals between two faults, at least
	during  = 2000 // records that are written during a fault: who writes is not held up
)

// survive lets faults happen, each of them twice, while streams are written and shipped. Then it waits until every record has arrived, and tells
// how many did so twice.
func survive(t *testing.T, w *writers, s *shipper, to farSide, faults ...fault) {
	t.Helper()
	arrived(t, to, between)
	for range 2 {
		for _, f := range append(faults, s.killed(t)) {
			began := time.Now()
			f.begin()
			w.more(t, during)
			f.end()
			healed := time.Now()
			arrived(t, to, between)
			t.Logf("%s for %v, and what was written came again after %v", f.name, healed.Sub(began).Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
		}
	}
	everythingArrives(t, w, to)
	if s.process.ended() {
		t.Error("the shipper has ended")
	}
}

// arrived waits until n more have arrived.
func arrived(t *testing.T, to farSide, n int64) {
	t.Helper()
	from := to.count(t)
	until(t, "more arrives", func() bool { return to.count(t) >= from+n })
}

// everythingArrives ends the writing, and waits until all of it has arrived.
func everythingArrives(t *testing.T, w *writers, to farSide) {
	t.Helper()
	want := w.ids(t)
	var twice int
	var seen int64 = -1
	until(t, "everything arrives", func() (all bool) {
		if n := to.count(t); n == seen {
			return false
		} else {
			seen = n
		}
		all, twice = complete(t, want, to.arrivals(t))
		return all
	})
	t.Logf("%d records arrived, %d of them twice", len(want), twice)
}
