// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/shim/status"
)

// What lies between two phases is in none, and a phase may come again.
func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, began := newStopwatch(), time.Now()
		time.Sleep(1 * time.Second)
		w.enter(status.PhaseDelegate)
		time.Sleep(2 * time.Second)
		w.pause()
		time.Sleep(time.Hour)
		w.enter(status.PhaseDelegate)
		time.Sleep(4 * time.Second)
		w.enter(status.PhaseArmed)
		time.Sleep(8 * time.Second)
		w.pause()
		w.pause()
		want := []audit.Lap{
			{Phase: status.PhaseResolve, Duration: time.Second},
			{Phase: status.PhaseDelegate, Offset: time.Second, Duration: 2 * time.Second},
			{Phase: status.PhaseDelegate, Offset: time.Hour + 3*time.Second, Duration: 4 * time.Second},
			{Phase: status.PhaseArmed, Offset: time.Hour + 7*time.Second, Duration: 8 * time.Second},
		}
		if diff := cmp.Diff(want, w.laps); diff != "" || !w.began.Equal(began) || w.phase != status.PhaseArmed {
			t.Errorf("%s, began %v, want %v\n%s", w.phase, w.began, began, diff)
		}
	})
}
