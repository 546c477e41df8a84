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
func (w *world) editBundle(widen bool) *rendezvous.Pending {
	w.t.Helper()
	b, err := bundle.Load(w.bundle())
	w.must(err)
	token := rendezvous.NewToken()
	var profile *specs.LinuxSeccomp
	p, edits := w.processEdits(token, widen, nil)
	w.must(b.Apply(bundle.TakeSeccomp(&profile), bundle.MountHelper(helperPath), bundle.MountSocket(w.socket()), bundle.OnProcess(edits...)))
	w.must(b.Commit())
	if profile != nil {
		// Stands in for the profile, of whose calls the probe makes this one.
		w.filter, w.refuse = launchtest.NotifyFilter(unix.SYS_KEYCTL), map[int]unix.Errno{unix.SYS_KEYCTL: unix.EPERM}
	}
	return w.expect(token, p, false)
}

// editExec does the same for the process of an exec session.
func (w *world) editExec(raw []byte, widen bool) ([]byte, *rendezvous.Pending) {
	w.t.Helper()
	token := rendezvous.NewToken()
	p, edits := w.processEdits(token, widen, &w.original)
	raw, err := bundle.EditProcess(raw, edits...)
	w.must(err)
	return raw, w.expect(token, p, true)
}

// edited is what the edits took away, and the plan has to put back.
type edited struct {
	env  []bundle.EnvVar
	caps *bundle.Capabilities
}

func (w *world) processEdits(token string, widen bool, inherited *specs.LinuxCapabilities) (*edited, []bundle.ProcessEdit) {
	p := &edited{}
	edits := []bundle.ProcessEdit{bundle.MoveGoEnv(&p.env), bundle.PrefixArgs(token)}
	if widen {
		p.caps = &bundle.Capabilities{}
		edits = append(edits, bundle.WidenCapabilities(inherited, p.caps))
	}
	return p, edits
}

func (w *world) expect(token string, e *edited, exec bool) *rendezvous.Pending {
	w.t.Helper()
	// Like runc, which asks for SPEC_ALLOW where a profile has no flags.
	p := &plan.Plan{Filter: w.filter, FilterFlags: plan.FlagSpecAllow}
	for _, v := range e.env {
		p.Env = append(p.Env, plan.EnvVar{Index: v.Index, Var: v.Entry})
	}
	if e.caps != nil {
		p.Caps = &plan.Caps{Bounding: e.caps.Bounding, Inheritable: e.caps.Inheritable, Ambient: e.caps.Ambient}
	}
	pending, err := w.rv.Expect(rendezvous.Spec{Token: token, Plan: p, Exec: exec, Helper: w.helper})
	w.must(err)
	return pending
}
