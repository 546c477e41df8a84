// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// A controller that has nothing to do beats, and one whose round does not end does not.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var beats atomic.Int64
		c.beat = func() { beats.Add(1) }
		release := make(chan struct{})
		var stuck atomic.Bool
		c.client.PrependReactor("*", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
			if stuck.Load() {
				<-release
			}
			return false, nil, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.rounds(ctx)
		}()
		time.Sleep(10 * turn)
		if got := beats.Load(); got < 10 {
			t.Errorf("%d beats in %s", got, 10*turn)
		}
		stuck.Store(true)
		time.Sleep(paramsChecked + turn)
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
