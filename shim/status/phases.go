// SPDX-License-Identifier: Apache-2.0

package status

import (
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
)

// The phases of a container's start, in their order. Between rewrite and delegate's second half the caller may pause, which is in none.
const (
	PhaseResolve  = "resolve"  // Create has come: load the bundle and choose the profile
	PhaseRewrite  = "rewrite"  // compile the filter, open the stream, make the supervisor, rewrite the bundle
	PhaseDelegate = "delegate" // the delegate's own Create and Start
	PhaseArmed    = "armed"    // from the delegate's Start to the workload: the filter is in force, and its receipt written
)

// PhaseNames are all phases.
func PhaseNames() []string { return []string{PhaseResolve, PhaseRewrite, PhaseDelegate, PhaseArmed} }

// PhaseBounds are the upper bounds of the buckets of a Phase, in seconds. They are part of the form, and never change.
func PhaseBounds() []float64 {
	return []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
}

// Phase is how long one phase took in the starts that came to their end, and how often a start ended in it.
type Phase struct {
	Phase   string   `json:"phase"`
	Count   uint64   `json:"count"`   // starts
	Seconds float64  `json:"seconds"` // of them together
	Buckets []uint64 `json:"buckets"` // for each of PhaseBounds: starts that took no longer than it, and longer than the one before
	Failed  uint64   `json:"failed"`  // starts that failed in this phase
}

// Phases measures starts. Its zero value has measured none. Its methods are safe for concurrent use and do not block.
type Phases struct {
	mu  sync.Mutex
	all map[string]*Phase // guarded by mu
}

func (p *Phases) at(name string) *Phase {
	if p.all == nil {
		p.all = map[string]*Phase{}
		for _, n := range PhaseNames() {
			p.all[n] = &Phase{Phase: n, Buckets: make([]uint64, len(PhaseBounds()))}
		}
	}
	return p.all[name]
}

// Took adds a start, by its laps.
func (p *Phases) Took(laps []audit.Lap) {
	times := map[string]time.Duration{}
	for _, l := range laps {
		times[l.Phase] += l.Duration
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range PhaseNames() {
		phase, seconds := p.at(name), times[name].Seconds()
		phase.Count++
		phase.Seconds += seconds
		for i, bound := range PhaseBounds() {
			if seconds <= bound {
				phase.Buckets[i]++
				break
			}
		}
	}
}

// Failed adds a start that failed in a phase.
func (p *Phases) Failed(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at(name).Failed++
}

// Snapshot returns a copy of what was measured; nil if nothing was.
func (p *Phases) Snapshot() []Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		return nil
	}
	var out []Phase
	for _, name := range PhaseNames() {
		phase := *p.all[name]
		phase.Buckets = append([]uint64(nil), phase.Buckets...)
		out = append(out, phase)
	}
	return out
}
