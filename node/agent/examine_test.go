// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// A handler that is not ready is looked at again soon, then less and less often, and each heartbeat once it is ready.
func TestExaminedSoonerWhileNotReady(t *testing.T) {
	answers := []struct {
		ready bool
		wait  time.Duration // until the next look, give or take a tenth
	}{
		{false, recovery}, {false, 2 * recovery}, {false, 4 * recovery}, {false, 8 * recovery}, {false, 16 * recovery},
		{false, Heartbeat}, {false, Heartbeat}, {true, Heartbeat}, {true, Heartbeat}, {false, recovery}, {true, Heartbeat},
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		looked := make(chan time.Time)
		turn := 0
		a := &Agent{Config: Config{Examine: func(context.Context) []v1alpha1.HandlerStatus {
			looked <- time.Now()
			status := []v1alpha1.HandlerStatus{{Name: "one", Ready: true}, {Name: "two", Ready: answers[turn].ready}}
			turn++
			return status
		}}}
		examined := make(chan []v1alpha1.HandlerStatus)
		go a.examine(ctx, examined)
		var last time.Time
		for i := range answers {
			now := <-looked
			if i > 0 {
				wait, want := now.Sub(last), answers[i-1].wait
				if wait < want-want/10 || wait > want+want/10 {
					t.Errorf("after look %d the next one came in %v, want %v", i, wait, want)
				}
			}
			last = now
			<-examined
		}
	})
}

// A node of which nothing can be said is not ready.
func TestReadyNeedsHandlers(t *testing.T) {
	if ready(nil) {
		t.Error("a node without handlers is ready")
	}
}
