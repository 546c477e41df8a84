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

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/proxy"
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
	resp, c, err := s.createReserved(ctx, &req, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.containers, req.ID)
		_ = os.Remove(cgroupRecord(s.Pod.Dir, req.ID)) // not there if it got no further
		return nil, err
	}
	if s.containers == nil { // the pod ended meanwhile
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
func (s *Service) createReserved(ctx context.Context, req *taskapi.CreateTaskRequest, next proxy.Next) ([]byte, *container, error) {
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
	chosen, passed, err := s.choose(b, who)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w: %w", req.ID, errdefs.ErrFailedPrecondition, err)
	}
	cgroup, err := s.rememberCgroup(b, req.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	if who.Sandbox && !passed {
		if err := guardPause(b); err != nil {
			return nil, nil, fmt.Errorf("create container %s: %w", req.ID, err)
		}
	}
	if chosen == nil {
		if err := s.Pod.Record(req.Bundle, req.ID, owner{Cgroup: cgroup}); err != nil {
			return nil, nil, err
		}
		resp, err := forward(ctx, next, req)
		return resp, nil, err
	}
	if req.Checkpoint != "" {
		return nil, nil, fmt.Errorf("restore container %s from a checkpoint: its processes would run without a launcher, and so without "+
			"profile %s: %w", req.ID, chosen.Name, errdefs.ErrNotImplemented)
	}
	c, err := s.prepare(b, req, who, chosen, cgroup)
	if err == nil {
		var resp []byte
		if resp, err = s.createPrepared(ctx, c, req, next); err == nil {
			return resp, c, nil
		}
	}
	if c != nil {
		c.close()
	}
	if rerr := errors.Join(b.Restore(), s.Pod.CloseRecord(req.Bundle)); rerr != nil {
		log.G(ctx).WithError(rerr).WithField("container", req.ID).Warn("bundle is not as it was")
	}
	return nil, nil, err
}

// createPrepared has the delegate create the rewritten container and checks what came of it.
func (s *Service) createPrepared(ctx context.Context, c *container, req *taskapi.CreateTaskRequest, next proxy.Next) ([]byte, error) {
	resp, err := forward(ctx, next, req)
	if err != nil {
		return nil, err
	}
	var created taskapi.CreateTaskResponse
	if err := decode(resp, &created); err != nil {
		return nil, err
	}
	pid := int(created.Pid)
	l, err := c.created(pid)
	if err == nil {
		err = c.checkHelper(s.helper)
	}
	if err == nil {
		err = l.pending.Confirm(pid)
	}
	if err != nil {
		s.discard(c.id)
		return nil, fmt.Errorf("create container %s: %w: %w", c.id, errdefs.ErrFailedPrecondition, err)
	}
	return resp, nil
}

// guardPause keeps the pod's processes out of the pause container, which has no filter of ours.
func guardPause(b *bundle.Bundle) error {
	if err := b.Apply(bundle.OnProcess(bundle.GuardCapabilities())); err != nil {
		return err
	}
	return b.Commit()
}

// choose returns the profile of a container, with the node's floor under it; nil if the container is not ours to
// supervise: the pause container, which runs nothing of the pod's, and passthrough. passed tells the second from the
// first.
func (s *Service) choose(b *bundle.Bundle, who bundle.Identity) (chosen *profile.Resolved, passed bool, err error) {
	set, err := s.profiles()
	if err != nil {
		return nil, false, err
	}
	annotations, err := b.Spec().Annotations()
	if err != nil {
		return nil, false, err
	}
	name, why, err := set.Select(profile.Pod{
		Namespace: who.Namespace, Container: who.Container, Image: who.Image, Annotations: annotations,
	}, profile.Defaults{Profile: s.Config.DefaultProfile})
	if err != nil {
		return nil, false, err
	}
	log.L.WithField("container", who.Container).WithField("profile", name).WithField("by", why.Reason).Debug("profile selected")
	resolved, err := set.Resolve(name)
	if err != nil {
		return nil, false, err
	}
	if s.Config.Floor != "" {
		floor, err := set.Resolve(s.Config.Floor)
		if err != nil {
			return nil, false, fmt.Errorf("the node's floor: %w", err)
		}
		resolved = resolved.WithFloor(floor)
	}
	if resolved.Passthrough || who.Sandbox {
		return nil, resolved.Passthrough, nil
	}
	return resolved, false, nil
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
	limits, skipped, err := s.host.Resolve(p.Limits)
	if err != nil {
		return cgroups.Limits{}, fmt.Errorf("profile %s: %w", p.Name, err)
	}
	for _, u := range skipped {
		log.L.WithField("profile", p.Name).WithField("limit", u.Resource).WithField("reason", u.Reason).
			Warn("best-effort limit cannot be enforced on this node")
	}
	return limits, nil
}
