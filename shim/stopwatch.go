// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/shim/status"
)

// stopwatch measures the phases of one container's start. It is for one goroutine at a time.
type stopwatch struct {
	began time.Time   // when Create came
	laps  []audit.Lap // that have ended, in their order; a phase may come again
	phase string      // under way, or the last one
	since time.Time   // zero: none is under way
}

func newStopwatch() *stopwatch {
	now := time.Now()
	return &stopwatch{began: now, phase: status.PhaseResolve, since: now}
}

// enter ends the phase that is under way and begins the next.
func (w *stopwatch) enter(phase string) {
	w.pause()
	w.phase, w.since = phase, time.Now()
}

// pause ends the phase that is under way.
func (w *stopwatch) pause() {
	if w.since.IsZero() {
		return
	}
	w.laps = append(w.laps, audit.Lap{Phase: w.phase, Offset: w.since.Sub(w.began), Duration: time.Since(w.since)})
	w.since = time.Time{}
}
