// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"context"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
	"metsuke.dev/metsuke/shim/bundle"
)

// arm does the supervisor's part, which serves the listener to the end of the test.
func (p *process) arm() error {
	if p.pending == nil {
		return nil
	}
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p.w.must(p.pending.Confirm(p.pid))
	l, err := p.pending.Await(ctx)
	if err != nil {
		return err
	}
	p.continuer = launchtest.Continue(p.w.t, l.Listener, p.w.refuse)
	return l.Arm(ctx)
}

// editBundle makes the edits that the shim makes, and expects the launcher.
func (w *world) editBundle() *rendezvous.Pending {
	w.t.Helper()
	b, err := bundle.Load(w.bundle())
	w.must(err)
	token := rendezvous.NewToken()
	var profile *specs.LinuxSeccomp
	// Like runc, which asks for SPEC_ALLOW where a profile has no flags.
	p := &plan.Plan{Filter: w.filter, FilterFlags: plan.FlagSpecAllow}
	w.must(b.Apply(bundle.TakeSeccomp(&profile), bundle.MountPrivate(helperPath, w.socket()),
		bundle.OnProcess(bundle.MoveGoEnv(&p.Env), bundle.PrefixArgs(token), bundle.WidenCapabilities(nil, &w.original))))
	p.Caps = w.original.Plan
	w.must(b.Commit())
	if profile != nil {
		// Stands in for the profile, of whose calls the probe makes this one.
		w.filter, w.refuse = launchtest.NotifyFilter(unix.SYS_KEYCTL), map[int]unix.Errno{unix.SYS_KEYCTL: unix.EPERM}
		p.Filter = w.filter
	}
	return w.expect(token, p, false)
}

// editExec does the same for the process of an exec session.
func (w *world) editExec(raw []byte) ([]byte, *rendezvous.Pending) {
	w.t.Helper()
	token := rendezvous.NewToken()
	p := &plan.Plan{Filter: w.filter, FilterFlags: plan.FlagSpecAllow}
	var own bundle.Capabilities
	raw, err := bundle.EditProcess(raw, bundle.MoveGoEnv(&p.Env), bundle.PrefixArgs(token), bundle.WidenCapabilities(&w.original, &own))
	w.must(err)
	p.Caps = own.Plan
	return raw, w.expect(token, p, true)
}

func (w *world) expect(token string, p *plan.Plan, exec bool) *rendezvous.Pending {
	w.t.Helper()
	pending, err := w.rv.Expect(rendezvous.Spec{Token: token, Plan: p, Exec: exec, Helper: w.helper})
	w.must(err)
	return pending
}
