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
func (s *Service) exec(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	var req taskapi.ExecProcessRequest
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
	if err := s.rewriteExec(c, &req); err != nil {
		return nil, fmt.Errorf("exec %s in container %s: %w", req.ExecID, req.ID, err)
	}
	resp, err := forward(ctx, next, &req)
	if err != nil {
		c.forget(req.ExecID)
		return nil, err
	}
	return resp, nil
}

func (s *Service) rewriteExec(c *container, req *taskapi.ExecProcessRequest) error {
	if req.ExecID == "" || req.Spec == nil {
		return fmt.Errorf("needs an id and a process: %w", errdefs.ErrInvalidArgument)
	}
	if err := c.checkHelper(s.helper); err != nil {
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
	if req.Spec.Value, err = bundle.EditProcess(req.Spec.Value, c.processEdits(token, &c.capabilities, &p, &own)...); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	p.Caps = own.Plan
	return c.expect(token, s.helperID, l, &p)
}
