// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"time"
)

// wait waits until all agents are as they are to be.
func (f *fleet) wait(ctx context.Context, is func(*simulated) bool) error {
	return f.plane.until(ctx, "the agents", func() error {
		missing := 0
		for _, n := range f.nodes {
			n.mu.Lock()
			if !is(n) {
				missing++
			}
			n.mu.Unlock()
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d nodes are missing", missing, len(f.nodes))
		}
		return nil
	})
}

// times are when something happened on each node, in seconds since a moment.
func (f *fleet) times(begin time.Time, at func(*simulated) time.Time) []float64 {
	out := make([]float64, len(f.nodes))
	for i, n := range f.nodes {
		n.mu.Lock()
		out[i] = at(n).Sub(begin).Seconds()
		n.mu.Unlock()
	}
	return out
}

// reports is how many reports the API server took.
func (f *fleet) reports() int {
	sum := 0
	for _, n := range f.nodes {
		n.mu.Lock()
		sum += n.reports
		n.mu.Unlock()
	}
	return sum
}

// agree is nil when all nodes acknowledged the same set.
func (f *fleet) agree() error {
	digests := map[string]int{}
	for _, n := range f.nodes {
		n.mu.Lock()
		digests[n.digest]++
		n.mu.Unlock()
	}
	if len(digests) != 1 {
		return fmt.Errorf("nodes acknowledged %d sets: %v", len(digests), digests)
	}
	return nil
}
