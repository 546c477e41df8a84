// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"time"

	"metsuke.dev/metsuke/shim/status"
)

// stopwatch measures the phases of one container's start. It is for one goroutine at a time.
type stopwatch struct {
	phase string // under way, or the last one
	since time.Time
	times map[string]time.Duration
}

func newStopwatch() *stopwatch {
	return &stopwatch{phase: status.PhaseResolve, since: time.Now(), times: map[string]time.Duration{}}
}

// enter ends the phase that is under way and begins the next, which may have been there before.
func (w *stopwatch) enter(phase string) {
	w.pause()
	w.phase, w.since = phase, time.Now()
}

// pause ends the phase that is under way.
func (w *stopwatch) pause() {
	if !w.since.IsZero() {
		w.times[w.phase] += time.Since(w.since)
		w.since = time.Time{}
	}
}
