// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The Lease that the replicas compete for. A replica that hangs is replaced after lease; one that ends gives it back.
const (
	leaseName = "metsuke-controller"
	lease     = 15 * time.Second
	renew     = 10 * time.Second
	retry     = 2 * time.Second
)

// errDeposed is that another replica may be at work.
var errDeposed = errors.New("this replica is not the leader any more")

// Elect waits until this replica, which identity names, is the elected one of those that compete in the namespace, and calls run. The
// context of run ends with ctx, and when the lease could not be renewed. Elect gives the lease back when run has returned, so no other
// replica works beside it unless it hangs. The error is run's, or says that the lease was lost; it is nil when ctx ended.
func Elect(ctx context.Context, client coordination.LeasesGetter, namespace, identity string, run func(context.Context) error) error {
	elected := make(chan context.Context, 1) // ends when the lease is lost
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: leaseName},
			Client:     client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: lease, RenewDeadline: renew, RetryPeriod: retry,
		ReleaseOnCancel: true,
		Name:            leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(led context.Context) { elected <- led },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	log.G(ctx).WithField("lease", namespace+"/"+leaseName).Info("waiting to be elected")
	competing, resign := context.WithCancel(context.WithoutCancel(ctx))
	resigned := make(chan struct{})
	go func() {
		defer close(resigned)
		elector.Run(competing)
	}()
	defer func() {
		resign()
		<-resigned
	}()
	select {
	case <-ctx.Done():
		return nil
	case led := <-elected:
		log.G(ctx).Info("elected")
		return lead(ctx, led, run)
	}
}

// lead calls run with a context that ends with ctx and with led.
func lead(ctx, led context.Context, run func(context.Context) error) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(led, stop)()
	err := run(running)
	switch {
	case ctx.Err() != nil:
		return nil
	case led.Err() != nil:
		return errDeposed
	}
	return err
}
