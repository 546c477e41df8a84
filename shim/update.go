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
func (s *Service) update(ctx context.Context, c *container, req *taskapi.UpdateTaskRequest, call *proxy.Call, next proxy.Next) ([]byte, error) {
	// Without limits of the profile there is still the resident's share of the container's own, and what delegates drop of them.
	if req.Resources == nil || c.limits.IsZero() && !s.inTheGuest() {
		return next(ctx, call.Payload)
	}
	// One update of a container at a time: which one is in force last, and what it was, must be known for the next.
	c.updating.Lock()
	defer c.updating.Unlock()
	c.mu.Lock()
	current := c.current
	c.mu.Unlock()
	var changes []cgroups.Change
	var applied specs.LinuxResources // as the workload sees it
	var err error
	req.Resources.Value, err = bundle.EditResources(req.Resources.Value, func(r *specs.LinuxResources) error {
		var err error
		if changes, err = cgroups.ClampUpdate(r, current, c.limits, s.version); err != nil {
			return err
		}
		applied = *r
		bundle.RaisePids(r, s.ownTasks())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w: %w", req.ID, errdefs.ErrInvalidArgument, err)
	}
	if err := c.super.canControl(ctx, &applied); err != nil {
		return nil, fmt.Errorf("update container %s: %w: %w", req.ID, errdefs.ErrFailedPrecondition, err)
	}
	// From here on it goes on without its caller: delegates finish what they have begun, and what they lift has to be restored.
	ctx = context.WithoutCancel(ctx)
	resp, err := forward(ctx, next, req)
	if err != nil {
		// How far it came is not known; what was in force before is to be so again.
		if _, cerr := c.super.control(ctx, &specs.LinuxResources{}); cerr != nil {
			err = fmt.Errorf("%w; and what it may have lifted is not restored: %w", err, cerr)
		}
		return nil, err
	}
	c.mu.Lock()
	c.current = cgroups.Remember(c.current, &applied)
	c.mu.Unlock()
	c.noteChanges("update", changes)
	found, err := c.super.control(ctx, &applied)
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w", req.ID, err)
	}
	if found == nil && !s.traits.HostPIDs {
		return resp, nil // not started, and nobody can look into the guest: the receipt will tell
	}
	if _, err := s.verify(c, found); err != nil {
		return nil, fmt.Errorf("update container %s: %w", req.ID, err)
	}
	return resp, nil
}
