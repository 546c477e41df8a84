// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats are a supervisor's counters since New.
type Stats struct {
	Sessions   int64             // that are served now
	Events     uint64            // syscall events that the sink has taken
	Audited    uint64            // audited calls that were let go on, recorded or not
	Denials    map[string]uint64 // denied and killed calls by rule id; "" is a profile's default
	Killed     uint64            // processes killed by a rule
	Folded     uint64            // denials that were counted instead of recorded one by one
	Tracking   uint64            // calls notified for bookkeeping only
	Vanished   uint64            // callers that were gone before their answer
	Identities uint64            // identities read from /proc
	Stalls     uint64            // audited calls that had to wait for the sink
	Lost       uint64            // events that never reached the sink
	Unrecorded uint64            // of Lost: those that no loss record in the stream tells of
}

// counters are updated on the serving path: plain atomics, each on its own.
type counters struct {
	sessions                                  atomic.Int64
	events, audited, killed, folded, tracking atomic.Uint64
	vanished, stalls, lost                    atomic.Uint64

	mu      sync.Mutex
	denials map[string]uint64 // protected by mu; its keys are the profile's, so it is bounded
}

func (c *counters) denied(rule string) {
	c.mu.Lock()
	if c.denials == nil {
		c.denials = map[string]uint64{}
	}
	c.denials[rule]++
	c.mu.Unlock()
}

// Stats returns a copy of the counters, each exact, though not all of one instant.
func (s *Supervisor) Stats() Stats {
	c := &s.counters
	c.mu.Lock()
	denials := maps.Clone(c.denials)
	c.mu.Unlock()
	return Stats{
		Sessions: c.sessions.Load(), Events: c.events.Load(), Audited: c.audited.Load(), Denials: denials,
		Killed: c.killed.Load(), Folded: c.folded.Load(), Tracking: c.tracking.Load(), Vanished: c.vanished.Load(),
		Identities: s.proc.reads.Load(), Stalls: c.stalls.Load(), Lost: c.lost.Load(), Unrecorded: s.loss.count.Load(),
	}
}
