// SPDX-License-Identifier: Apache-2.0

package status

import (
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
)

func TestPhases(t *testing.T) {
	var p Phases
	if p.Snapshot() != nil {
		t.Error("nothing was measured")
	}
	p.Took([]audit.Lap{
		{Phase: PhaseResolve, Duration: time.Millisecond}, {Phase: PhaseRewrite, Duration: 1001 * time.Microsecond},
		{Phase: PhaseDelegate, Duration: 50 * time.Minute}, {Phase: PhaseDelegate, Offset: time.Hour, Duration: 10 * time.Minute},
	})
	p.Took([]audit.Lap{{Phase: PhaseResolve, Duration: 20 * time.Second}})
	p.Failed(PhaseArmed)
	got := p.Snapshot()
	p.Took(nil) // changes no copy
	if len(got) != len(PhaseNames()) {
		t.Fatalf("%+v", got)
	}
	last := len(PhaseBounds()) - 1
	for i, want := range []struct {
		seconds float64
		buckets map[int]uint64
		failed  uint64
	}{
		{20.001, map[int]uint64{0: 1, last: 1}, 0},
		{0.001001, map[int]uint64{0: 1, 1: 1}, 0},
		{3600, map[int]uint64{0: 1}, 0}, // an hour is above all bounds: in the count alone
		{0, map[int]uint64{0: 2}, 1},
	} {
		phase := got[i]
		if phase.Phase != PhaseNames()[i] || phase.Count != 2 || phase.Seconds != want.seconds || phase.Failed != want.failed {
			t.Errorf("%+v", phase)
		}
		for j, n := range phase.Buckets {
			if n != want.buckets[j] {
				t.Errorf("%s: bucket %d has %d, want %d", phase.Phase, j, n, want.buckets[j])
			}
		}
	}
}
