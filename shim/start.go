// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/status"
)

// killTimeout bounds how long the end of what must not run may take before the container's first process is killed
// without the delegate.
const killTimeout = 5 * time.Second

// killPause is the first pause between two attempts to kill.
const killPause = 100 * time.Millisecond

// start returns when the delegate has started the process and the launcher has become the workload. If either fails
// the workload has not run, and what the delegate started is killed; deleting it is the caller's, as after any failed
// Start.
func (s *Service) start(ctx context.Context, c *container, req *taskapi.StartRequest, call *proxy.Call, next proxy.Next) ([]byte, error) {
	l := c.take(req.ExecID)
	if l == nil {
		return next(ctx, call.Payload) // started before, or not there: the delegate's to refuse
	}
	if l.exec != "" {
		return s.startTaken(ctx, c, l, newStopwatch(), call, next) // of a session, which nobody reads
	}
	defer c.starting()()
	c.watch.enter(status.PhaseDelegate)
	resp, err := s.startTaken(ctx, c, l, c.watch, call, next)
	c.watch.pause()
	if err != nil {
		s.phases.Failed(c.watch.phase)
		return nil, err
	}
	s.phases.Took(c.watch.laps)
	c.note(s.timing(c))
	return resp, nil
}

// startTaken does the work of start.
func (s *Service) startTaken(ctx context.Context, c *container, l *launch, watch *stopwatch, call *proxy.Call, next proxy.Next) ([]byte, error) {
	// The caller's deadline is for the delegate's part. Ours begins when the delegate has done it, and does not end with
	// the caller: whether the workload ran must be known.
	armCtx, give := context.WithCancelCause(context.WithoutCancel(ctx))
	defer give(nil)
	var notArmed error // valid once decided is closed
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		notArmed = c.arm(armCtx, l, func(got inForce) (*audit.Event, error) { return s.receipt(c, l, got) })
	}()

	resp, err := next(ctx, call.Payload)
	if err != nil {
		give(err)
		<-decided
		return nil, err
	}
	watch.enter(status.PhaseArmed)
	limit := s.Config.Deadlines.Armed
	deadline := time.AfterFunc(limit, func() { give(fmt.Errorf("not armed %s after the delegate started it", limit)) })
	defer deadline.Stop()
	if err := tellStarted(armCtx, l, resp); err != nil {
		give(err)
		<-decided
		s.kill(c, l.exec)
		return nil, notStarted(l, err)
	}
	<-decided
	if notArmed != nil {
		s.kill(c, l.exec)
		return nil, notStarted(l, notArmed)
	}
	return resp, nil
}

// tellStarted tells the supervision which process the delegate has started.
func tellStarted(ctx context.Context, l *launch, resp []byte) error {
	var started taskapi.StartResponse
	if err := decode(resp, &started); err != nil {
		return err
	}
	return l.pending.started(ctx, int(started.Pid))
}

// notStarted words an error as the delegate would have: callers show it, and some read it.
func notStarted(l *launch, err error) error {
	var exec *rendezvous.ExecError
	if errors.As(err, &exec) && exec.Workload() {
		if l.exec != "" {
			return fmt.Errorf("OCI runtime exec failed: exec failed: %w", err)
		}
		return fmt.Errorf("OCI runtime create failed: runc create failed: %w", err)
	}
	return fmt.Errorf("metsuke: the workload was not started: %w", err)
}

// kill ends a process that must not run on: all of the container's if exec is empty. It returns after the first attempt; a
// container that has no process here which could be killed without the delegate, is tried again until it has ended.
func (s *Service) kill(c *container, exec string) {
	err := s.killOnce(c, exec)
	if err == nil {
		return
	}
	logger := log.L.WithError(err).WithField("container", c.id).WithField("exec", exec)
	if exec != "" {
		logger.Warn("exec session that must not run could not be killed; it has not run the workload")
		return
	}
	logger.Warn("the delegate did not kill the container; killing its first process")
	if err := c.init.kill(); err == nil {
		return
	}
	logger.Error("container could not be killed; trying again until it has ended")
	go func() {
		for pause := killPause; !c.ended(pause); pause = min(2*pause, killTimeout) {
			if s.killOnce(c, exec) == nil {
				return
			}
		}
	}()
}

func (s *Service) killOnce(c *container, exec string) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	return s.signal(ctx, c.id, exec, unix.SIGKILL)
}
