// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	coordinationfake "k8s.io/client-go/kubernetes/typed/coordination/v1/fake"
	clienttesting "k8s.io/client-go/testing"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// leases keeps Leases in memory.
func leases(t *testing.T) *coordinationfake.FakeCoordinationV1 {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := coordinationv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	fake := &clienttesting.Fake{}
	tracker := clienttesting.NewObjectTracker(scheme, nil)
	fake.AddReactor("*", "*", clienttesting.ObjectReaction(tracker))
	return &coordinationfake.FakeCoordinationV1{Fake: fake}
}

// The second replica begins when the first has ended and given the lease back, not before.
func TestElect(t *testing.T) {
	client := leases(t)
	first, second := make(chan struct{}), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	firstEnded, secondEnded := make(chan error, 1), make(chan error, 1)
	go func() {
		firstEnded <- Elect(ctx, client, "metsuke-system", "a", func(ctx context.Context) error {
			close(first)
			<-ctx.Done()
			select {
			case <-second:
				t.Error("the second replica works beside the first")
			default:
			}
			return ctx.Err()
		})
	}()
	<-first
	failure := errors.New("it ends by itself")
	go func() {
		secondEnded <- Elect(t.Context(), client, "metsuke-system", "b", func(context.Context) error {
			close(second)
			return failure
		})
	}()
	stop()
	if err := <-firstEnded; err != nil {
		t.Errorf("the first ends with %v", err)
	}
	<-second
	if err := <-secondEnded; !errors.Is(err, failure) {
		t.Errorf("the second ends with %v", err)
	}
	l, err := client.Leases("metsuke-system").Get(t.Context(), leaseName, metav1.GetOptions{})
	if err != nil || *l.Spec.HolderIdentity != "" {
		t.Errorf("the lease is held by %v: %v", l.Spec.HolderIdentity, err)
	}
}

// A replica that never was elected ends when it is told to.
func TestElectInterrupted(t *testing.T) {
	client := leases(t)
	ctx, stop := context.WithCancel(t.Context())
	leading := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- Elect(ctx, client, "metsuke-system", "a", func(ctx context.Context) error {
			close(leading)
			<-ctx.Done()
			return nil
		})
	}()
	<-leading
	waiting, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := Elect(waiting, client, "metsuke-system", "b", func(context.Context) error { return errors.New("elected beside another") }); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLead(t *testing.T) {
	failure := errors.New("failure")
	running, deposed := t.Context(), func() context.Context {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		return ctx
	}()
	untilEnd := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, tt := range map[string]struct {
		ctx, led context.Context
		run      func(context.Context) error
		want     error
	}{
		"the lease is lost":   {running, deposed, untilEnd, errDeposed},
		"told to end":         {deposed, running, untilEnd, nil},
		"it fails":            {running, running, func(context.Context) error { return failure }, failure},
		"it ends without one": {running, running, func(context.Context) error { return nil }, nil},
	} {
		if err := lead(tt.ctx, tt.led, tt.run); !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
