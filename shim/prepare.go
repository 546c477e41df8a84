// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"path/filepath"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/status"
)

// prepare makes everything that a container needs before the delegate sees it: program, stream, supervisor,
// rendezvous, and the rewritten bundle. On error the container, if there is one, is the caller's to close.
func (s *Service) prepare(b *bundle.Bundle, req *taskapi.CreateTaskRequest, p *profile.Resolved, own status.Owner) (*container, error) {
	c := &container{
		id: req.ID, bundle: req.Bundle, image: own.Image, profile: p, exited: make(chan struct{}), starts: map[string]*launch{},
		stdin: map[string]stdin{"": {fifo: req.Stdin}},
		dir:   filepath.Join(s.Pod.Dir, "containers", req.ID), init: &initProcess{}, private: s.privateDir(),
	}
	fail := func(err error) (*container, error) { return c, fmt.Errorf("create container %s: %w", req.ID, err) }
	var err error
	if c.limits, err = s.resolveLimits(p); err != nil {
		return fail(fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err))
	}
	var pods *specs.LinuxSeccomp
	if err := b.Apply(bundle.TakeSeccomp(&pods)); err != nil {
		return fail(fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err))
	}
	if c.program, err = seccomp.Compile(p.Policy(seccomp.NativeArch(), pods)); err != nil {
		return fail(fmt.Errorf("%w: profile %s: %w", errdefs.ErrInvalidArgument, p.Name, err))
	}
	for _, in := range c.program.Filter() {
		c.filter = plan.AppendInsn(c.filter, in.Code, in.JT, in.JF, in.K)
	}
	if err := s.openStream(c, req.Bundle, own); err != nil {
		return fail(err)
	}
	if err := b.Apply(s.specEdits(c)...); err != nil {
		return fail(fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err))
	}
	if c.super, err = s.supervise(c); err != nil {
		return fail(err)
	}
	if err := s.rewriteInit(b, c); err != nil {
		return fail(err)
	}
	return c, nil
}

// owner is what is kept of a container beside its bundle, for delete and for whoever looks at the node.
func (s *Service) owner(b *bundle.Bundle, id string, who bundle.Identity, p *profile.Resolved) (own status.Owner, err error) {
	own = status.Owner{
		Identity: audit.Identity{
			Node: s.node, Namespace: who.Namespace, Pod: who.Pod, PodUID: who.PodUID, Container: who.Container,
			ContainerID: id, Profile: p.Name, ProfileDigest: p.Digest,
		},
		Created: time.Now(), Sandbox: who.Sandbox, Image: who.Image, Delegate: s.Config.Delegate.RuntimeType,
	}
	if !who.Sandbox && !p.Passthrough {
		own.Placement = string(s.Config.Supervisor.Placement)
	}
	annotations, err := b.Spec().Annotations()
	if err != nil {
		return own, err
	}
	if asked, ok := annotations[profile.Annotation]; ok {
		own.Asked = &asked
	}
	own.Cgroup, err = s.rememberCgroup(b, id)
	return own, err
}

// openStream opens the container's stream and leaves its place in the bundle for the delete action.
func (s *Service) openStream(c *container, bundleDir string, own status.Owner) error {
	own.Stream, own.Key = stream.Dir(s.Config.Directories.Audit, own.Identity), s.Config.Audit.Key
	w, err := stream.OpenWriter(own.Stream, own.Identity, stream.Options{
		SegmentBytes: s.Config.Audit.SegmentSize, SegmentAge: s.Config.Audit.SegmentAge, Budget: s.budget, Appended: c.tally.Add, Key: s.key,
		Synced: c.profile.Durability == profile.DurabilitySynced, FlushInterval: flushInterval(c.profile),
		Problem: func(err error) {
			log.L.WithError(err).WithField("container", c.id).Error("audit stream is not whole on the disk")
		},
	})
	if err != nil {
		return err
	}
	c.stream, c.earlier = w, w.Seq()
	if !w.Recovered().IsZero() {
		if err := w.Report(audit.LossShim, "an earlier shim did not close this stream"); err != nil {
			return err
		}
	}
	return s.Pod.Record(bundleDir, c.id, own)
}

// stallTimeout is how long a write of the profile's containers may stall before onLoss.
func (s *Service) stallTimeout(p *profile.Resolved) time.Duration {
	if p.StallTimeout != 0 {
		return p.StallTimeout
	}
	return s.Config.Audit.StallTimeout
}

// flushInterval is how long a record of the profile's containers may be not on the disk.
func flushInterval(p *profile.Resolved) time.Duration {
	if p.FlushInterval != 0 {
		return p.FlushInterval
	}
	return profile.DefaultFlushInterval
}

// rewriteInit edits the init process, registers its launch, and writes the bundle.
func (s *Service) rewriteInit(b *bundle.Bundle, c *container) error {
	process, err := b.Spec().Process()
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	token := rendezvous.NewToken()
	l, p := &launch{}, &plan.Plan{}
	if l.argv, err = process.Args(); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	if err := b.Apply(bundle.OnProcess(s.processEdits(c, token, nil, p, &c.capabilities)...)); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	p.Caps = c.capabilities.Plan
	if err := c.expect(token, l, p); err != nil {
		return err
	}
	return b.Commit()
}
