// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/proxy"
)

// update lowers the request to the profile's ceilings, passes it on, and verifies what is in force then. Each value that was
// lowered leaves a limit event. What Stats and the cgroup files say afterwards is what was applied.
func (s *Service) update(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	var req taskapi.UpdateTaskRequest
	if err := decode(call.Payload, &req); err != nil {
		return nil, err
	}
	c, managed, err := s.lookup(req.ID)
	if err != nil {
		return nil, err
	}
	if !managed || req.Resources == nil || c.limits.IsZero() {
		return next(ctx, call.Payload)
	}
	// One update of a container at a time: which one is in force last, and what it was, must be known for the next.
	c.updating.Lock()
	defer c.updating.Unlock()
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	var changes []cgroups.Change
	var applied specs.LinuxResources
	req.Resources.Value, err = bundle.EditResources(req.Resources.Value, func(r *specs.LinuxResources) error {
		var err error
		changes, err = cgroups.ClampUpdate(r, current, c.limits, s.host.Version)
		applied = *r
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w: %w", req.ID, errdefs.ErrInvalidArgument, err)
	}
	resp, err := forward(ctx, next, &req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.current = cgroups.Remember(c.current, &applied)
	pid := c.pid
	c.mu.Unlock()
	c.noteChanges("update", changes)
	if _, err := s.verify(c, pid); err != nil {
		return nil, fmt.Errorf("update container %s: %w", req.ID, err)
	}
	return resp, nil
}
