// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/dynamic"
)

// Options are the parameters of a run.
type Options struct {
	Programs

	Nodes     int           // how many agents
	Documents int           // how many profiles and bindings there are
	Changes   int           // how often a profile is changed
	Settle    time.Duration // --settle of the agents
	Spread    time.Duration // --acknowledge-within of the agents
	Restarts  bool          // whether all agents are restarted, send heartbeats, and lose the API server
	Progress  func(format string, args ...any)
}

// simulation is one run.
type simulation struct {
	Options
	*fleet
	client  dynamic.Interface // an administrator's
	result  *Result
	release chan struct{} // lets one doctor after the other come to its end, or all
	edits   int
}

// Run starts a control plane and agents, and measures. It takes minutes, blocks until all that it started has ended, and leaves nothing
// behind. The machine must allow as many open files as there are nodes, and some more.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	dir, err := tempDir(false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	profiles, err := tempDir(true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(profiles)) }()

	o.Progress("%d nodes: starting etcd, the API server and the controller", o.Nodes)
	p, err := startPlane(ctx, o.Programs, dir)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	client, err := dynamic.NewForConfig(p.admin)
	if err != nil {
		return nil, err
	}
	s := &simulation{Options: o, client: client, result: &Result{Nodes: o.Nodes, Documents: o.Documents}}
	if s.fleet, err = newFleet(ctx, p, profiles, o.Nodes, o.Settle, o.Spread); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.fleet.close()) }()
	if err := s.writeDocuments(ctx); err != nil {
		return nil, err
	}
	if err := s.phases(ctx); err != nil {
		return nil, fmt.Errorf("%d nodes: %w", o.Nodes, err)
	}
	return s.result, nil
}

func (s *simulation) phases(ctx context.Context) error {
	if err := s.measure(ctx, "join", s.join); err != nil {
		return err
	}
	for range s.Changes {
		if err := s.measure(ctx, "change", s.change); err != nil {
			return err
		}
	}
	if !s.Restarts {
		return nil
	}
	if err := s.measure(ctx, "agents restart", s.restart); err != nil {
		return err
	}
	if err := s.measure(ctx, "heartbeats", s.heartbeats); err != nil {
		return err
	}
	return s.measure(ctx, "API server restarts", s.restartAPIServer)
}

// measure does something, and notes what that cost. Between two phases nothing is to be done by anybody.
func (s *simulation) measure(ctx context.Context, name string, do func(context.Context, *Phase) error) error {
	before, err := s.count(ctx)
	if err != nil {
		return err
	}
	phase := &Phase{Name: name, Nodes: s.Nodes}
	begin := time.Now()
	if err := do(ctx, phase); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	phase.Seconds = time.Since(begin).Seconds()
	after, err := s.count(ctx)
	if err != nil {
		return err
	}
	phase.Load = after.sub(before)
	if phase.Memory, err = s.memory(); err != nil {
		return err
	}
	s.result.Phases = append(s.result.Phases, phase)
	s.Progress("%d nodes: %s: %.1f s", s.Nodes, name, phase.Seconds)
	return nil
}

func (s *simulation) memory() (m Memory, err error) {
	for process, to := range map[*process]*uint64{s.plane.apiserver: &m.APIServer, s.plane.etcd: &m.Etcd, s.plane.controller: &m.Controller} {
		if *to, _, err = process.memory(); err != nil {
			return m, err
		}
	}
	return m, nil
}
