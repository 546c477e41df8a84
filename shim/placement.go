// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/bundle"
	"metsuke.dev/metsuke/shim/resident"
)

// What the supervisor's place changes: the edits of a container's specification and of its processes, and what
// supervises it.

// eventCredit bounds, in bytes, the events of one container that are on their way from its resident.
const eventCredit = 4 << 20

// residentMemory is what the VM of a pod is made larger by, in bytes: a resident takes less than 8 MiB, and a pod has several
// containers.
const residentMemory = 32 << 20

// inTheGuest says that containers are supervised by residents.
func (s *Service) inTheGuest() bool { return s.Config.Supervisor.Placement == config.PlacementGuest }

// privateDir returns the directory of a new container that belongs to us: in guest placement one that no image knows of (see
// bundle.MountPrivateInGuest).
func (s *Service) privateDir() private.Name {
	if s.inTheGuest() {
		return private.Dir + private.Name("-"+rendezvous.NewToken())
	}
	return private.Dir
}

// ownTasks are the supervisor's tasks that count in a container's cgroup.
func (s *Service) ownTasks() int64 {
	if s.inTheGuest() {
		return channel.ResidentTasks
	}
	return 0
}

// specEdits returns the edits of a container's specification that lower its limits and bring the helper in.
func (s *Service) specEdits(c *container) []bundle.Edit {
	edits := []bundle.Edit{bundle.RefuseOwnFiles(s.ownFiles())}
	if s.traits.Sandboxed {
		edits = append(edits, s.refuseWeakening()...)
	}
	if s.traits.NeedsResources {
		edits = append(edits, bundle.WithResources())
	}
	edits = append(edits, bundle.RefuseStartHooks(), bundle.CgroupsReadOnly(), bundle.ClampLimits(c.limits, s.version, &c.clamped), remember(&c.current))
	if !s.inTheGuest() {
		return append(edits, bundle.MountPrivate(s.helper, c.socketPath()))
	}
	return append(edits, bundle.RaisePidsLimit(s.ownTasks()), bundle.MountPrivateInGuest(c.private, s.helper, len(s.traits.LimitsDropped) > 0))
}

// ownFiles are what a container must not have of the node: the streams and their key, what steers us, and the cgroups of its own kernel.
func (s *Service) ownFiles() []string {
	d := s.Config.Directories
	own := []string{d.Audit, d.State, d.Profiles, s.helper, s.Config.Audit.Key}
	if !s.traits.Sandboxed {
		own = append(own, "/sys/fs/cgroup")
	}
	return own
}

// remember is no edit: it notes the resources as they are at that point.
func remember(r **specs.LinuxResources) bundle.Edit {
	return func(spec *bundle.Spec) (err error) {
		*r, err = spec.Resources()
		return err
	}
}

// refuseWeakening returns the edits that refuse what a pod could weaken a VM with.
func (s *Service) refuseWeakening() []bundle.Edit {
	return []bundle.Edit{bundle.RefuseAnnotations(s.Config.Delegate.Kata.AllowedAnnotations), bundle.RefuseGuestFiles()}
}

// processEdits returns the edits of a process. Once they are made, p has what the launcher restores, and was the process's
// own capabilities. container are the container's, for an exec.
func (s *Service) processEdits(c *container, token string, container *bundle.Capabilities, p *plan.Plan, was *bundle.Capabilities) []bundle.ProcessEdit {
	edits := []bundle.ProcessEdit{bundle.PrefixArgs(c.private.GuestPath(), token), bundle.MoveGoEnv(&p.Env)}
	if c.profile.NoNewPrivileges == profile.NNPTrue {
		edits = append(edits, bundle.NoNewPrivileges())
	}
	if !s.traits.Sandboxed {
		edits = append(edits, bundle.RefuseTracer(s.inTheGuest()))
	}
	if s.traits.ExecDrops && container != nil {
		edits = append(edits, bundle.PlanDropped(p))
	}
	if !s.inTheGuest() {
		return append(edits, bundle.WidenCapabilities(container, was))
	}
	return append(edits, bundle.WidenForResident(s.traits.ExecDrops, container, was))
}

// supervise makes the container's supervisor. c.current and c.program must be there.
func (s *Service) supervise(c *container) (supervision, error) {
	if s.inTheGuest() {
		return s.superviseInGuest(c)
	}
	// Others may search the directories: in a user namespace the delegate mounts the socket as one of them.
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		return nil, fmt.Errorf("rendezvous: %w", err)
	}
	helper, err := openHelper(s.helper)
	if err != nil {
		return nil, err
	}
	var synced supervisor.SyncedSink
	if c.profile.Durability == profile.DurabilitySynced {
		synced = c.stream
	}
	watch, err := supervisor.New(supervisor.Options{
		Program: c.program, Sink: c.stream, Synced: synced, StallTimeout: s.stallTimeout(c.profile), Continue: c.profile.OnLoss == profile.OnLossContinue,
		OnLoss: func(l audit.Loss) { s.lost(c, l) },
	})
	if err != nil {
		return nil, errors.Join(err, helper.file.Close())
	}
	meeting, err := rendezvous.Listen(c.socketPath())
	if err != nil {
		return nil, errors.Join(err, watch.Close(), helper.file.Close())
	}
	return &hosted{helper: helper, meeting: meeting, watch: watch, init: c.init}, nil
}

func (s *Service) superviseInGuest(c *container) (supervision, error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("resident: %w", err)
	}
	program, err := c.program.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("resident: %w", err)
	}
	g := &inGuest{
		traits: s.traits, limits: c.limits, init: c.init, settings: cgroups.Settings(c.current, s.traits.LimitsDropped, s.ownTasks()),
	}
	start := channel.Start{
		Program: program, Ordered: c.profile.Delivery == profile.DeliveryOrdered, Credit: eventCredit,
		Continue: c.profile.OnLoss == profile.OnLossContinue, Cgroup: len(s.traits.LimitsDropped) > 0,
	}
	if !s.traits.HostPIDs {
		start.Watch = c.limits.Files()
	}
	g.resident, err = resident.New(resident.Config{
		Container: c.id, Helper: c.private.GuestPath(), ExecID: residentPrefix + rendezvous.NewToken(), Dir: c.dir, Invoke: s.ask, Start: start, Sink: c.stream,
		Settings:     g.begin,
		StallTimeout: s.stallTimeout(c.profile),
		OnLoss:       func(l audit.Loss) { s.lost(c, l) },
		OnKillInit:   func() { s.kill(c, "") },
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}
