// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"os"
	"path/filepath"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/shim/bundle"
)

// prepare makes everything that a container needs before the delegate sees it: program, stream, supervisor,
// rendezvous, and the rewritten bundle. On error the container, if there is one, is the caller's to close.
func (s *Service) prepare(b *bundle.Bundle, req *taskapi.CreateTaskRequest, who bundle.Identity, p *profile.Resolved, cgroup string) (*container, error) {
	c := &container{
		id: req.ID, bundle: req.Bundle, image: who.Image, profile: p, exited: make(chan struct{}), starts: map[string]*launch{},
		dir: filepath.Join(s.Pod.Dir, "containers", req.ID),
	}
	fail := func(err error) (*container, error) { return c, fmt.Errorf("create container %s: %w", req.ID, err) }
	var err error
	if c.limits, err = s.resolveLimits(p); err != nil {
		return fail(fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err))
	}
	var own *specs.LinuxSeccomp
	if err := b.Apply(bundle.TakeSeccomp(&own)); err != nil {
		return fail(fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err))
	}
	if c.program, err = seccomp.Compile(p.Policy(seccomp.NativeArch(), own)); err != nil {
		return fail(fmt.Errorf("%w: profile %s: %w", errdefs.ErrInvalidArgument, p.Name, err))
	}
	for _, in := range c.program.Filter() {
		c.filter = plan.AppendInsn(c.filter, in.Code, in.JT, in.JF, in.K)
	}
	identity := audit.Identity{
		Node: s.node, Namespace: who.Namespace, Pod: who.Pod, PodUID: who.PodUID, Container: who.Container,
		ContainerID: req.ID, Profile: p.Name, ProfileDigest: p.Digest,
	}
	if err := s.openStream(c, req.Bundle, owner{Identity: identity, Cgroup: cgroup}); err != nil {
		return fail(err)
	}
	if err := s.openRendezvous(c); err != nil {
		return fail(err)
	}
	if err := s.rewrite(b, c); err != nil {
		return fail(err)
	}
	return c, nil
}

// openStream opens the container's stream, leaves its place in the bundle for the delete action, and starts the
// supervisor.
func (s *Service) openStream(c *container, bundleDir string, o owner) error {
	o.Stream = stream.Dir(s.Config.Directories.Audit, o.Identity)
	w, err := stream.OpenWriter(o.Stream, o.Identity, stream.Options{SegmentBytes: s.Config.Audit.SegmentSize})
	if err != nil {
		return err
	}
	c.stream = w
	if !w.Recovered().IsZero() {
		if err := reportLoss(w, audit.LossShim, "an earlier shim did not close this stream"); err != nil {
			return err
		}
	}
	if err := s.Pod.Record(bundleDir, c.id, o); err != nil {
		return err
	}
	stall := c.profile.StallTimeout
	if stall == 0 {
		stall = s.Config.Audit.StallTimeout
	}
	c.watch, err = supervisor.New(supervisor.Options{
		Program: c.program, Sink: w, StallTimeout: stall, Continue: c.profile.OnLoss == profile.OnLossContinue,
		OnLoss: func(l audit.Loss) { s.lost(c, l) },
	})
	return err
}

// openRendezvous makes the socket that the container's launchers connect to.
func (s *Service) openRendezvous(c *container) error {
	// Others may search the directories: in a user namespace the delegate mounts the socket as one of them.
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		return fmt.Errorf("rendezvous: %w", err)
	}
	var err error
	c.meeting, err = rendezvous.Listen(c.socketPath())
	return err
}

// rewrite edits the bundle and registers the launch of its init process.
func (s *Service) rewrite(b *bundle.Bundle, c *container) error {
	process, err := b.Spec().Process()
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	token := rendezvous.NewToken()
	l, p := &launch{}, &plan.Plan{}
	if l.argv, err = process.Args(); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	err = b.Apply(
		bundle.ClampLimits(c.limits, s.host.Version, &c.clamped),
		bundle.MountPrivate(s.helper, c.socketPath()),
		bundle.OnProcess(c.processEdits(token, nil, p, &c.capabilities)...),
	)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	p.Caps = c.capabilities.Plan
	if c.current, err = b.Spec().Resources(); err != nil {
		return err
	}
	if err := c.expect(token, s.helperID, l, p); err != nil {
		return err
	}
	return b.Commit()
}

// processEdits returns the edits of a process. Once they are made, p has the variables that the launcher puts back, and
// was the process's own capabilities. container are the container's, for an exec.
func (c *container) processEdits(token string, container *bundle.Capabilities, p *plan.Plan, was *bundle.Capabilities) []bundle.ProcessEdit {
	edits := []bundle.ProcessEdit{bundle.PrefixArgs(token), bundle.MoveGoEnv(&p.Env)}
	if c.profile.NoNewPrivileges == profile.NNPTrue {
		edits = append(edits, bundle.NoNewPrivileges())
	}
	return append(edits, bundle.WidenCapabilities(container, was))
}
