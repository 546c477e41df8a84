// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// join starts all agents at once on nodes that have no documents, and waits until each has reported, and each node has its label.
func (s *simulation) join(ctx context.Context, phase *Phase) error {
	begin := time.Now()
	if err := s.start(ctx, func(context.Context) {}); err != nil {
		return err
	}
	if err := s.acknowledged(ctx, phase, begin); err != nil {
		return err
	}
	complete, err := s.complete(ctx, 1)
	if err != nil {
		return err
	}
	phase.latency("status complete", complete.Sub(begin).Seconds())
	if err := s.plane.until(ctx, "the labels of nodes", func() error { return s.labelled(ctx) }); err != nil {
		return err
	}
	phase.latency("labelled", time.Since(begin).Seconds())
	return nil
}

// labelled is nil once each node has the label of a handler that is ready.
func (s *simulation) labelled(ctx context.Context) error {
	list, err := s.plane.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{
		LabelSelector: v1alpha1.HandlerLabel + ready + "!=" + v1alpha1.Ready, ResourceVersion: "0", // of the API server's cache
	})
	if err == nil && len(list.Items) > 0 {
		err = fmt.Errorf("%d nodes lack it", len(list.Items))
	}
	return err
}

// change changes one profile, and waits until its status says that all nodes have it.
func (s *simulation) change(ctx context.Context, phase *Phase) error {
	begin := time.Now()
	generation, err := s.edit(ctx)
	if err != nil {
		return err
	}
	return s.rolledOut(ctx, phase, begin, generation)
}

// rolledOut waits until a generation of the edited profile is everywhere.
func (s *simulation) rolledOut(ctx context.Context, phase *Phase, begin time.Time, generation int64) error {
	var accepted, complete time.Time
	var waits errgroup.Group
	waits.Go(func() (err error) {
		name := v1alpha1.AcceptedName("AgentProfile", edited)
		accepted, err = seen(ctx, s.client, v1alpha1.AcceptedDocuments, name, func(a *v1alpha1.AcceptedDocument) bool { return a.Spec.Generation >= generation })
		return err
	})
	waits.Go(func() (err error) {
		complete, err = s.complete(ctx, generation)
		return err
	})
	if err := s.acknowledged(ctx, phase, begin); err != nil {
		return err
	}
	if err := waits.Wait(); err != nil {
		return err
	}
	phase.latency("accepted", accepted.Sub(begin).Seconds())
	phase.latency("status complete", complete.Sub(begin).Seconds())
	return s.agree()
}

// acknowledged waits until each agent has put documents in force, and acknowledged others than before, since a moment.
func (s *simulation) acknowledged(ctx context.Context, phase *Phase, begin time.Time) error {
	if err := s.wait(ctx, func(n *simulated) bool { return n.acked.After(begin) }); err != nil {
		return err
	}
	phase.latency("in force", s.times(begin, func(n *simulated) time.Time { return n.inForce })...)
	phase.latency("acknowledged", s.times(begin, func(n *simulated) time.Time { return n.acked })...)
	return nil
}

// complete is when the edited profile's status says that a generation is in force on all nodes.
func (s *simulation) complete(ctx context.Context, generation int64) (time.Time, error) {
	return seen(ctx, s.client, v1alpha1.AgentProfiles, edited, func(d *v1alpha1.Document) bool {
		return d.Status.InForce != nil && d.Status.InForce.Generation >= generation && d.Status.Nodes == v1alpha1.NodeCounts{Total: s.Nodes, Acknowledged: s.Nodes}
	})
}

// restart ends all agents and starts them at once, and waits until each has listed the documents. Their doctors take their time.
func (s *simulation) restart(ctx context.Context, phase *Phase) error {
	s.stop()
	s.release = make(chan struct{})
	begin := time.Now()
	err := s.start(ctx, func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-s.release:
		}
	})
	if err != nil {
		return err
	}
	if err := s.wait(ctx, func(n *simulated) bool { return n.inForce.After(begin) }); err != nil {
		return err
	}
	phase.latency("listed", s.times(begin, func(n *simulated) time.Time { return n.inForce })...)
	return nil
}

// Heartbeats of 15,000 nodes, and for how long the phase for them lasts.
const (
	heartbeatRate = 50 // a second: one of each node in agent.Heartbeat
	heartbeatTime = time.Minute
)

// heartbeats lets one doctor after the other end, so that heartbeats come at the rate of a large cluster, as long as there are nodes.
func (s *simulation) heartbeats(ctx context.Context, phase *Phase) error {
	before := s.reports()
	n := min(s.Nodes, int(heartbeatRate*heartbeatTime.Seconds()))
	tick := time.NewTicker(time.Second / heartbeatRate)
	defer tick.Stop()
	for range n {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			s.release <- struct{}{}
		}
	}
	phase.Heartbeats = n
	return s.plane.until(ctx, "the heartbeats", func() error {
		if sent := s.reports() - before; sent < n {
			return fmt.Errorf("%d of %d heartbeats are sent", sent, n)
		}
		return nil
	})
}

// restartAPIServer kills the API server and starts it again, changes a profile as soon as it is ready, and waits until all nodes have that.
// The controller is started anew too, as its Deployment would: its lease may have run out.
func (s *simulation) restartAPIServer(ctx context.Context, phase *Phase) error {
	close(s.release) // so that the others report as well
	s.plane.controller.stop()
	s.plane.apiserver.kill()
	if err := s.plane.startAPIServer(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.plane.startController(ctx); err != nil {
		return err
	}
	generation, err := s.edit(ctx)
	if err != nil {
		return err
	}
	return s.rolledOut(ctx, phase, begin, generation)
}
