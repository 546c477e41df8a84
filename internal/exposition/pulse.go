// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Pulse tells whether a loop still goes round. Its methods are safe for concurrent use.
type Pulse struct {
	limit time.Duration
	last  atomic.Pointer[time.Time] // nil: it has not begun
}

// NewPulse returns the pulse of a loop that is stuck when it has not gone round for so long. Before its first turn nothing is known
// of it, and nothing is wrong.
func NewPulse(limit time.Duration) *Pulse { return &Pulse{limit: limit} }

// Beat says that the loop goes round.
func (p *Pulse) Beat() {
	now := time.Now()
	p.last.Store(&now)
}

// Check returns an error if the loop is stuck.
func (p *Pulse) Check() error {
	last := p.last.Load()
	if last == nil {
		return nil
	}
	if still := time.Since(*last); still > p.limit {
		return fmt.Errorf("stuck for %s", still.Round(time.Second))
	}
	return nil
}
