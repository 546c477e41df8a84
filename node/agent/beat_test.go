// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"metsuke.dev/metsuke/profile"
)

// An agent that has nothing to do beats, and one that is stuck does not.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		var beats, stuck atomic.Int64
		release := make(chan struct{})
		n.config.Beat = func() { beats.Add(1) }
		n.config.Mirror.Check = func(*profile.Set) error {
			if stuck.Load() > 0 {
				<-release
			}
			return nil
		}
		a, err := New(n.config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.loop(ctx, nil)
		}()
		time.Sleep(10 * turn)
		if got := beats.Load(); got < 10 {
			t.Errorf("%d beats in %s", got, 10*turn)
		}
		stuck.Store(1)
		a.dirty <- struct{}{}
		time.Sleep(turn)
		before := beats.Load()
		time.Sleep(10 * turn)
		if got := beats.Load(); got != before {
			t.Errorf("%d beats while it was stuck", got-before)
		}
		close(release)
		time.Sleep(2 * turn)
		if beats.Load() == before {
			t.Error("no beat afterwards")
		}
		stop()
		<-ended
	})
}
