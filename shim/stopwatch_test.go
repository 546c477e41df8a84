// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"metsuke.dev/metsuke/shim/status"
)

// What lies between two phases is in none, and a phase may come again.
func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStopwatch()
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
		want := map[string]time.Duration{status.PhaseResolve: time.Second, status.PhaseDelegate: 6 * time.Second, status.PhaseArmed: 8 * time.Second}
		if !maps.Equal(w.times, want) || w.phase != status.PhaseArmed {
			t.Errorf("%v, %s", w.times, w.phase)
		}
	})
}
