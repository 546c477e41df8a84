// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/cgroups/inside"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/resident"
)

// residentGrace bounds how long the end of a container waits for its resident's last events, and then for its end.
const residentGrace = 5 * time.Second

// inGuest is a supervision by a resident: in a guest, or wherever the configuration wants the supervisor in the
// container.
type inGuest struct {
	resident *resident.Resident
	traits   delegate.Traits
	limits   cgroups.Limits
	init     *initProcess

	mu       sync.Mutex
	ready    channel.Ready    // guarded by mu; zero before the resident is
	settings []inside.Setting // guarded by mu; that the delegate leaves to us
	told     bool             // guarded by mu; the resident was told them
}

// begin returns what the resident is to put in force first.
func (g *inGuest) begin() []channel.Setting {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = true
	return toChannel(g.settings)
}

func (g *inGuest) expect(exec, token string, p *plan.Plan) (expected, error) {
	pending, err := g.resident.Expect(exec, token, p)
	if err != nil {
		return nil, err
	}
	return &guestLaunch{guest: g, first: exec == "", pending: pending}, nil
}

func (g *inGuest) created(int, expected) error { return nil }

// checkHelper: whether the helper is in its place is the resident's to see, here and again for the launch. Whether the
// session comes to that place only the node can see; the agent of a guest keeps the mount namespace by descriptor.
func (g *inGuest) checkHelper(ctx context.Context) error {
	if g.traits.HostPIDs {
		if _, err := g.init.root(); err != nil {
			return fmt.Errorf("check the helper: %w", err)
		}
	}
	g.mu.Lock()
	ready := g.ready
	g.mu.Unlock()
	if ready.Tasks == 0 {
		return nil // nothing runs in the container yet
	}
	if err := g.resident.CheckHelper(ctx); err != nil {
		return fmt.Errorf("check the helper: %w", err)
	}
	return nil
}

func (g *inGuest) canControl(ctx context.Context, r *specs.LinuxResources) error {
	if len(g.traits.LimitsDropped) == 0 {
		return nil
	}
	g.mu.Lock()
	settings, told := g.updated(r), g.told
	g.mu.Unlock()
	if err := channel.Check(channel.Control{ID: 1, Settings: toChannel(settings)}); err != nil {
		return fmt.Errorf("limits inside the container: %w", err)
	}
	if !told {
		return nil
	}
	_, err := g.resident.Control(ctx, nil)
	return err
}

// updated returns what is to be in force after an update. The caller holds g.mu.
func (g *inGuest) updated(r *specs.LinuxResources) []inside.Setting {
	return cgroups.Merge(g.settings, cgroups.Settings(r, g.traits.LimitsDropped, channel.ResidentTasks))
}

// control applies what the delegate drops, and what it resets with each update. A resident that does not do so, which was there a
// moment ago, is given up: what the delegate has lifted is not in force.
func (g *inGuest) control(ctx context.Context, r *specs.LinuxResources) ([]cgroups.Found, error) {
	if len(g.traits.LimitsDropped) == 0 {
		return nil, nil
	}
	g.mu.Lock()
	g.settings = g.updated(r)
	settings, told := g.settings, g.told
	g.mu.Unlock()
	if !told { // created only: the resident is told at its start
		return nil, nil
	}
	values, err := g.resident.Control(ctx, toChannel(settings))
	if err != nil {
		g.resident.GiveUp(err)
		return nil, err
	}
	return g.reported(values)
}

// reported is nil where the node's own files tell.
func (g *inGuest) reported(values []channel.Value) ([]cgroups.Found, error) {
	if g.traits.HostPIDs {
		return nil, nil
	}
	return cgroups.Reported(fromChannel(values), g.limits)
}

func (g *inGuest) killed() uint64 { return g.resident.Killed() }

func (g *inGuest) stalls() uint64 { return g.resident.Stalls() }

func (g *inGuest) tasks() uint64 {
	if g.resident.Gone() {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return uint64(g.ready.Tasks)
}

func (g *inGuest) exited(status uint32) { g.resident.Exited(status) }

func (g *inGuest) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), residentGrace)
	defer cancel()
	_ = g.resident.Ended(ctx) // what did not come in time is a loss, and on record as such
}

func (g *inGuest) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), residentGrace)
	defer cancel()
	return g.resident.Close(ctx)
}

// guestLaunch is a launch that comes to the resident's rendezvous.
type guestLaunch struct {
	guest   *inGuest
	first   bool // of the container's first process
	pending *resident.Pending
}

// started brings the resident into the container whose first process has been started, and waits for it. Some delegates
// cannot do that earlier.
func (l *guestLaunch) started(ctx context.Context, _ int) error {
	if !l.first {
		return nil
	}
	ready, err := l.guest.resident.Launch(ctx)
	if err != nil {
		return err
	}
	l.guest.mu.Lock()
	defer l.guest.mu.Unlock()
	l.guest.ready = ready
	return nil
}

func (l *guestLaunch) cancel() { l.pending.Cancel() }

func (l *guestLaunch) await(ctx context.Context) (standing, error) {
	launcher, err := l.pending.Await(ctx)
	if err != nil {
		return nil, err
	}
	limits, err := l.guest.reported(launcher.Values)
	if err != nil {
		launcher.Close()
		return nil, err
	}
	l.guest.mu.Lock()
	kernel := l.guest.ready.Kernel
	l.guest.mu.Unlock()
	return &guestStanding{launcher: launcher, got: inForce{
		pid: int(launcher.PID), kernel: kernel, limits: limits,
		status: rendezvous.Status{
			UID: launcher.UID, GID: launcher.GID, Seccomp: launcher.Seccomp, Filters: launcher.Filters, NoNewPrivs: launcher.NoNewPrivs,
		},
	}}, nil
}

// guestStanding is a launcher whose listener the resident holds.
type guestStanding struct {
	launcher *resident.Found
	got      inForce
}

func (s *guestStanding) found() inForce { return s.got }

func (s *guestStanding) arm(ctx context.Context) error { return s.launcher.Arm(ctx) }

func (s *guestStanding) abandon() { s.launcher.Close() }

func toChannel(settings []inside.Setting) []channel.Setting {
	out := make([]channel.Setting, len(settings))
	for i, s := range settings {
		out[i] = channel.Setting(s)
	}
	return out
}

func fromChannel(values []channel.Value) []inside.Value {
	out := make([]inside.Value, len(values))
	for i, v := range values {
		out[i] = inside.Value(v)
	}
	return out
}
