// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/proxy"
	"metsuke.dev/metsuke/shim/resident"
	"metsuke.dev/metsuke/shim/status"
)

// create resolves the container's profile, rewrites its bundle, and passes on with the delegate's own options. After
// an error nothing of ours is left and the bundle is as it was.
func (s *Service) create(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	var req taskapi.CreateTaskRequest
	if err := decode(call.Payload, &req); err != nil {
		return nil, err
	}
	if err := s.reserve(req.ID); err != nil {
		return nil, err
	}
	watch := newStopwatch()
	resp, c, err := s.createReserved(ctx, &req, watch, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.phases.Failed(watch.phase)
		delete(s.containers, req.ID)
		_ = os.Remove(status.CgroupFile(s.Pod.Dir, req.ID)) // not there if it got no further
		return nil, err
	}
	if s.containers == nil { // the pod ended meanwhile
		if c != nil {
			c.close()
		}
		return nil, fmt.Errorf("create container %s: the pod is ending: %w", req.ID, errdefs.ErrUnavailable)
	}
	s.containers[req.ID] = c
	return resp, nil
}

// creating stands for a container whose Create is under way.
var creating = &container{}

// reserve takes the id for one Create.
func (s *Service) reserve(id string) error {
	if id == "" || id != filepath.Base(id) || id == ".." || id == "." {
		return fmt.Errorf("container id %q is no file name: %w", id, errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers == nil {
		return fmt.Errorf("create container %s: the pod is ending: %w", id, errdefs.ErrUnavailable)
	}
	if _, ok := s.containers[id]; ok {
		return fmt.Errorf("container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.containers[id] = creating
	return nil
}

// createReserved does the work of create. The container is nil if it is not ours to change.
func (s *Service) createReserved(ctx context.Context, req *taskapi.CreateTaskRequest, watch *stopwatch, next proxy.Next) ([]byte, *container, error) {
	b, err := bundle.Load(req.Bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	if req.Options, err = s.createOptions(req.Options); err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	who, err := b.Spec().Identity(s.Pod.Namespace, req.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	chosen, err := s.choose(b, who)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w: %w", req.ID, errdefs.ErrFailedPrecondition, err)
	}
	own, err := s.owner(b, req.ID, who, chosen)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	if who.Sandbox && !chosen.Passthrough {
		if err := s.editPause(b, chosen); err != nil {
			return nil, nil, fmt.Errorf("create container %s: %w: %w", req.ID, errdefs.ErrFailedPrecondition, err)
		}
	}
	if who.Sandbox || chosen.Passthrough {
		if err := s.Pod.Record(req.Bundle, req.ID, own); err != nil {
			return nil, nil, err
		}
		resp, err := forward(ctx, next, req)
		if err == nil {
			return resp, nil, nil
		}
		if !chosen.Passthrough {
			err = s.explain(err)
		}
		s.putBack(ctx, b, req)
		return nil, nil, err
	}
	if req.Checkpoint != "" {
		return nil, nil, fmt.Errorf("restore container %s from a checkpoint: its processes would run without a launcher, and so without "+
			"profile %s: %w", req.ID, chosen.Name, errdefs.ErrNotImplemented)
	}
	watch.enter(status.PhaseRewrite)
	c, err := s.prepare(b, req, chosen, own)
	if err == nil {
		c.watch, c.caller = watch, traceparent(ctx)
		watch.enter(status.PhaseDelegate)
		var resp []byte
		if resp, err = s.createPrepared(ctx, c, req, next); err == nil {
			watch.pause()
			return resp, c, nil
		}
	}
	if c != nil {
		c.close()
	}
	s.putBack(ctx, b, req)
	return nil, nil, err
}

// putBack makes the bundle of a Create that failed what it was.
func (s *Service) putBack(ctx context.Context, b *bundle.Bundle, req *taskapi.CreateTaskRequest) {
	if err := errors.Join(b.Restore(), s.Pod.CloseRecord(req.Bundle)); err != nil {
		log.G(ctx).WithError(err).WithField("container", req.ID).Warn("bundle is not as it was")
	}
}

// createPrepared has the delegate create the rewritten container and checks what came of it.
func (s *Service) createPrepared(ctx context.Context, c *container, req *taskapi.CreateTaskRequest, next proxy.Next) ([]byte, error) {
	resp, err := forward(ctx, next, req)
	if err != nil {
		return nil, s.explain(err)
	}
	var created taskapi.CreateTaskResponse
	if err := decode(resp, &created); err != nil {
		return nil, err
	}
	if !s.traits.HostPIDs {
		return resp, nil // the pid is the VMM's: the whole pod's
	}
	if err := c.created(int(created.Pid)); err != nil {
		s.discard(c.id)
		return nil, fmt.Errorf("create container %s: %w: %w", c.id, errdefs.ErrFailedPrecondition, err)
	}
	c.countOOMs(s.host)
	return resp, nil
}

// explain says what to do where a policy in the guest allows only containers as they were before they were rewritten.
func (s *Service) explain(err error) error {
	if err == nil || !s.traits.Sandboxed || !resident.IsPolicy(err) {
		return err
	}
	return fmt.Errorf("metsuke: a policy in the guest refuses the container as it has to be supervised: give the pod a policy that allows "+
		"it, or run it under a handler of Kata's own: %w", err)
}

// editPause keeps the pod's processes out of the pause container, which has no filter of ours because it runs nothing of
// the pod's, and says how large the pod's VM must be, if it has one.
func (s *Service) editPause(b *bundle.Bundle, p *profile.Resolved) error {
	edits := []bundle.Edit{bundle.OnProcess(bundle.GuardCapabilities())}
	if s.traits.Sandboxed {
		var own *specs.LinuxSeccomp // a guest's agent shall not see one
		edits = append(edits, s.refuseWeakening()...)
		edits = append(edits, bundle.WithResources(), bundle.TakeSeccomp(&own), bundle.SizeSandbox(p.Limits, residentMemory))
	}
	if err := b.Apply(edits...); err != nil {
		return err
	}
	return b.Commit()
}

// choose returns the profile of a container, with the node's floor under it.
func (s *Service) choose(b *bundle.Bundle, who bundle.Identity) (*profile.Resolved, error) {
	set, err := s.profiles()
	if err != nil {
		return nil, err
	}
	annotations, err := b.Spec().Annotations()
	if err != nil {
		return nil, err
	}
	chosen, why, err := set.Choose(profile.Pod{
		Namespace: who.Namespace, Container: who.Container, Image: who.Image, Annotations: annotations,
	}, profile.Defaults{Profile: s.Config.DefaultProfile, Floor: s.Config.Floor})
	if err != nil {
		return nil, err
	}
	log.L.WithField("container", who.Container).WithField("profile", chosen.Name).WithField("by", why.Reason).Debug("profile selected")
	return chosen, nil
}

// profiles reads all documents anew.
func (s *Service) profiles() (*profile.Set, error) {
	files, err := s.Config.OpenProfiles()
	if err != nil {
		return nil, err
	}
	return profile.Load(files, s.Config.Directories.Profiles)
}

// discard ends a container that the delegate has created and that must not start.
func (s *Service) discard(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := s.deleteTask(ctx, id); err != nil {
		log.L.WithError(err).WithField("container", id).Warn("container that must not start is left to containerd's cleanup")
	}
}

// resolveLimits fits the profile's limits to this node.
func (s *Service) resolveLimits(p *profile.Resolved) (cgroups.Limits, error) {
	resolve := s.host.Resolve
	if s.traits.Sandboxed {
		resolve = func(l cgroups.Limits) (cgroups.Limits, []cgroups.Unenforceable, error) {
			return cgroups.ResolveForGuest(l, s.traits.LimitsForeign)
		}
	}
	limits, skipped, err := resolve(p.Limits)
	if err != nil {
		return cgroups.Limits{}, fmt.Errorf("profile %s: %w", p.Name, err)
	}
	for _, u := range skipped {
		log.L.WithField("profile", p.Name).WithField("limit", u.Resource).WithField("reason", u.Reason).
			Warn("best-effort limit cannot be enforced on this node")
	}
	return limits, nil
}
