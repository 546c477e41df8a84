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
)

// killTimeout bounds how long the end of what must not run may take before the container's first process is killed
// without the delegate.
const killTimeout = 5 * time.Second

// start returns when the delegate has started the process and the launcher has become the workload. If either fails
// the workload has not run, and what the delegate started is killed; deleting it is the caller's, as after any failed
// Start.
func (s *Service) start(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	var req taskapi.StartRequest
	if err := decode(call.Payload, &req); err != nil {
		return nil, err
	}
	c, managed, err := s.lookup(req.ID)
	if err != nil {
		return nil, err
	}
	if !managed {
		return next(ctx, call.Payload)
	}
	l := c.take(req.ExecID)
	if l == nil {
		return next(ctx, call.Payload) // started before, or not there: the delegate's to refuse
	}
	// The caller's deadline is for the delegate's part. Ours begins when the delegate has done it, and does not end with
	// the caller: whether the workload ran must be known.
	armCtx, give := context.WithCancelCause(context.WithoutCancel(ctx))
	defer give(nil)
	var notArmed error // valid once decided is closed
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		notArmed = c.arm(armCtx, l, func(pid int) (*audit.Event, error) { return s.receipt(c, l, pid) })
	}()

	resp, err := next(ctx, call.Payload)
	if err != nil {
		give(err)
		<-decided
		return nil, err
	}
	limit := s.Config.Deadlines.Armed
	deadline := time.AfterFunc(limit, func() { give(fmt.Errorf("not armed %s after the delegate started it", limit)) })
	defer deadline.Stop()
	if l.exec != "" {
		if err := confirm(l, resp); err != nil {
			give(err)
			<-decided
			s.kill(c, l.exec)
			return nil, err
		}
	}
	<-decided
	if notArmed != nil {
		s.kill(c, l.exec)
		return nil, notStarted(l, notArmed)
	}
	return resp, nil
}

// confirm tells the rendezvous which process the delegate started.
func confirm(l *launch, resp []byte) error {
	var started taskapi.StartResponse
	if err := decode(resp, &started); err != nil {
		return err
	}
	return l.pending.Confirm(int(started.Pid))
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

// kill ends a process that must not run on: all of the container's if exec is empty.
func (s *Service) kill(c *container, exec string) {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	err := s.signal(ctx, c.id, exec, unix.SIGKILL)
	if err == nil {
		return
	}
	logger := log.L.WithError(err).WithField("container", c.id).WithField("exec", exec)
	if exec != "" {
		logger.Warn("exec session that must not run could not be killed; it has not run the workload")
		return
	}
	logger.Warn("the delegate did not kill the container; killing its first process")
	if err := c.killInit(); err != nil {
		log.L.WithError(err).WithField("container", c.id).Error("container could not be killed")
	}
}
