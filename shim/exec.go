// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/proxy"
)

// exec rewrites the process of an exec session so that it goes through the launcher too. One that cannot be
// rewritten is refused.
func (s *Service) exec(ctx context.Context, c *container, req *taskapi.ExecProcessRequest, _ *proxy.Call, next proxy.Next) ([]byte, error) {
	if err := s.rewriteExec(ctx, c, req); err != nil {
		return nil, fmt.Errorf("exec %s in container %s: %w", req.ExecID, req.ID, err)
	}
	resp, err := forward(ctx, next, req)
	if err != nil {
		c.withdraw(req.ExecID)
		return nil, err
	}
	c.mu.Lock()
	c.stdin[req.ExecID] = stdin{fifo: req.Stdin}
	c.mu.Unlock()
	return resp, nil
}

func (s *Service) rewriteExec(ctx context.Context, c *container, req *taskapi.ExecProcessRequest) error {
	if req.ExecID == "" || req.Spec == nil {
		return fmt.Errorf("needs an id and a process: %w", errdefs.ErrInvalidArgument)
	}
	if req.ExecID == req.ID { // its exit would be taken for the container's
		return fmt.Errorf("an exec's id must be another than its container's: %w", errdefs.ErrInvalidArgument)
	}
	if err := c.super.checkHelper(ctx); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err)
	}
	process, err := bundle.ParseProcess(req.Spec.Value)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	l := &launch{exec: req.ExecID, terminal: req.Terminal}
	if l.argv, err = process.Args(); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	token := rendezvous.NewToken()
	var p plan.Plan
	var own bundle.Capabilities
	if req.Spec.Value, err = bundle.EditProcess(req.Spec.Value, s.processEdits(c, token, &c.capabilities, &p, &own)...); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	p.Caps = own.Plan
	return c.expect(token, l, &p)
}
