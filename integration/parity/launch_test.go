// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
	"metsuke.dev/metsuke/shim/bundle"
)

// form is what the shim does to a process, by where its supervisor is and what the delegate loses. The launcher's other end is
// here in each.
type form struct {
	name  string
	widen func(container, was *bundle.Capabilities) bundle.ProcessEdit
	drops bool // the delegate gives an exec session what the container has: see dropped
}

// forms are those of the placement that METSUKE_PLACEMENT names.
var forms = map[string][]form{"": {hostForm}, "host": {hostForm}, "guest": {residentForm(false), residentForm(true)}}[os.Getenv("METSUKE_PLACEMENT")]

var hostForm = form{name: "host", widen: bundle.WidenCapabilities}

func residentForm(drops bool) form {
	return form{
		name: map[bool]string{false: "guest", true: "guest of Kata"}[drops], drops: drops,
		widen: func(container, was *bundle.Capabilities) bundle.ProcessEdit {
			return bundle.WidenForResident(drops, container, was)
		},
	}
}

// withoutMissing takes out of the bundle what this process cannot give, which is lent in Kata's guest, where everything can be:
// some machines keep CAP_SYS_RESOURCE from their root. The launcher then keeps limits that are as asked for, but raises none.
func (w *world) withoutMissing() {
	w.t.Helper()
	path := filepath.Join(w.bundle(), "config.json")
	var spec map[string]any
	w.must(json.Unmarshal(read(w.t, path), &spec))
	sets, _ := spec["process"].(map[string]any)["capabilities"].(map[string]any)
	have := allCapabilities(w.t)
	for name, set := range sets {
		list, _ := set.([]any)
		sets[name] = slices.DeleteFunc(list, func(c any) bool { return c == "CAP_SYS_RESOURCE" && !slices.Contains(have, "CAP_SYS_RESOURCE") })
	}
	data, err := json.Marshal(spec)
	w.must(err)
	w.must(os.WriteFile(path, data, 0o644))
}

// dropped is the process of an exec session as it comes out of Kata (delegate.Traits.ExecDrops), whose container's process is
// the edited one of the bundle.
func (w *world) dropped(raw []byte) []byte {
	w.t.Helper()
	var spec struct{ Process map[string]any }
	w.must(json.Unmarshal(read(w.t, filepath.Join(w.bundle(), "config.json")), &spec))
	var process map[string]any
	w.must(json.Unmarshal(raw, &process))
	delete(process, "noNewPrivileges")
	for _, name := range []string{"capabilities", "rlimits", "oomScoreAdj"} {
		if delete(process, name); spec.Process[name] != nil {
			process[name] = spec.Process[name]
		}
	}
	raw, err := json.Marshal(process)
	w.must(err)
	return raw
}

// arm does the supervisor's part, which serves the listener to the end of the test.
func (p *process) arm() error {
	if p.pending == nil {
		return nil
	}
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.w.must(p.pending.Confirm(p.pid))
	l, err := p.pending.Await(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
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
		bundle.OnProcess(bundle.MoveGoEnv(&p.Env), bundle.PrefixArgs(bundle.Guest, token), w.form.widen(nil, &w.original))))
	p.Caps = w.original.Plan
	w.must(b.Commit())
	if w.form.drops {
		w.withoutMissing()
	}
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
	edits := []bundle.ProcessEdit{bundle.MoveGoEnv(&p.Env), bundle.PrefixArgs(bundle.Guest, token)}
	if w.form.drops {
		edits = append(edits, bundle.PlanDropped(p))
	}
	raw, err := bundle.EditProcess(raw, append(edits, w.form.widen(&w.original, &own))...)
	w.must(err)
	if w.form.drops {
		raw = w.dropped(raw)
	}
	p.Caps = own.Plan
	return raw, w.expect(token, p, true)
}

func (w *world) expect(token string, p *plan.Plan, exec bool) *rendezvous.Pending {
	w.t.Helper()
	pending, err := w.rv.Expect(rendezvous.Spec{Token: token, Plan: p, Exec: exec, Helper: w.helper})
	w.must(err)
	return pending
}
