// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/seccomp"
)

// ClassSyscalls is the class of events of calls that a profile names one by one under audit.syscalls.
const ClassSyscalls = "syscalls"

// Resolve returns the named profile with all that it extends. A name that does not exist is an error.
func (s *Set) Resolve(name string) (*Resolved, error) {
	p, ok := s.profiles[name]
	if !ok {
		return nil, s.noProfile(name)
	}
	if p.passthrough {
		r := &Resolved{Name: name, Passthrough: true, NoNewPrivileges: NNPInherit, Delivery: DeliveryOrdered, OnLoss: OnLossKill, Durability: DurabilityBatched}
		r.Provenance.Profiles = []Source{p.source("metadata.name")}
		r.Digest = r.digest()
		return r, nil
	}
	return s.effective(p, map[string]*effect{}).resolved(name), nil
}

func (s *Set) noProfile(name string) error {
	hint := ""
	if near := diagnostic.Nearest(name, s.Names()); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return fmt.Errorf("there is no profile %s%s", diagnostic.Quote(name), hint)
}

// effect is what a profile and all that it extends say together, and who said it.
type effect struct {
	profiles     []Source
	nnp          NNP
	nnpFrom      Source
	layers       []layerOf
	limits       cgroups.Limits
	limitFrom    map[string][]Source
	classes      map[string][]Source
	syscalls     map[string][]Source
	delivery     Delivery
	deliveryFrom Source
	onLoss       OnLoss
	onLossFrom   Source
	stall        time.Duration
	stallFrom    Source
	durable      Durability
	durableFrom  Source
	flush        time.Duration
	flushFrom    Source
}

type layerOf struct {
	layer *seccomp.Layer
	of    *agentProfile
}

// effective resolves p, parents first, each profile once. There are no cycles: Load refuses them.
func (s *Set) effective(p *agentProfile, known map[string]*effect) *effect {
	if e, ok := known[p.name]; ok {
		return e
	}
	e := s.inherited(p, known).with(p)
	known[p.name] = e
	return e
}

// inherited is what p's parents say together; without parents what holds if nobody says anything.
func (s *Set) inherited(p *agentProfile, known map[string]*effect) *effect {
	var e *effect
	for _, name := range p.extends {
		parent := s.effective(s.profiles[name], known)
		if e == nil {
			e = parent
			continue
		}
		e = e.tighten(parent)
	}
	if e == nil {
		self := p.source("metadata.name")
		e = &effect{nnp: NNPTrue, nnpFrom: self, delivery: DeliveryOrdered, deliveryFrom: self, onLoss: OnLossKill, onLossFrom: self,
			durable: DurabilityBatched, durableFrom: self}
	}
	return e
}

// tighten returns the stricter of both in every part.
func (e *effect) tighten(o *effect) *effect {
	t := *e
	t.profiles = union(e.profiles, o.profiles)
	if e.nnp != NNPTrue {
		t.nnp, t.nnpFrom = o.nnp, o.nnpFrom
	}
	t.layers = slices.Clone(e.layers)
	for _, l := range o.layers {
		if !slices.Contains(t.layers, l) {
			t.layers = append(t.layers, l)
		}
	}
	t.limits, t.limitFrom = tightenLimits(e.limits, o.limits, e.limitFrom, o.limitFrom)
	t.classes, t.syscalls = unite(e.classes, o.classes), unite(e.syscalls, o.syscalls)
	if e.delivery != DeliveryOrdered {
		t.delivery, t.deliveryFrom = o.delivery, o.deliveryFrom
	}
	if e.onLoss != OnLossKill {
		t.onLoss, t.onLossFrom = o.onLoss, o.onLossFrom
	}
	t.stall, t.stallFrom = stricterStall(t.onLoss, e.stall, o.stall, e.stallFrom, o.stallFrom)
	if e.durable != DurabilitySynced {
		t.durable, t.durableFrom = o.durable, o.durableFrom
	}
	if o.flush != 0 && (e.flush == 0 || o.flush < e.flush) {
		t.flush, t.flushFrom = o.flush, o.flushFrom
	}
	return &t
}

// stricterStall: where a stall ends in a kill the shorter time is stricter; where it ends in events that are
// lost, the longer is.
func stricterStall(onLoss OnLoss, a, b time.Duration, aFrom, bFrom Source) (time.Duration, Source) {
	if b == 0 || a != 0 && (a <= b) == (onLoss == OnLossKill) {
		return a, aFrom
	}
	return b, bFrom
}

// with lays one document over what it inherits: it tightens, or with replace takes the place of the parts that it
// states.
func (e *effect) with(p *agentProfile) *effect {
	own := &effect{
		profiles: []Source{p.source("metadata.name")},
		nnp:      e.nnp, nnpFrom: e.nnpFrom,
		limits: p.limits, limitFrom: map[string][]Source{},
		classes: map[string][]Source{}, syscalls: map[string][]Source{},
		delivery: e.delivery, deliveryFrom: e.deliveryFrom,
		onLoss: e.onLoss, onLossFrom: e.onLossFrom,
		stall: p.stall, stallFrom: p.source("spec.audit.stallTimeout"),
		durable: e.durable, durableFrom: e.durableFrom,
		flush: p.flush, flushFrom: p.source("spec.audit.flushInterval"),
	}
	for _, name := range limitNames() {
		if p.limits.Has(name) {
			own.limitFrom[name] = []Source{p.source("spec.limits." + name)}
		}
	}
	for _, c := range p.classes {
		own.classes[c] = []Source{p.source("spec.audit.classes." + c)}
	}
	for _, c := range p.syscalls {
		own.syscalls[c] = []Source{p.source("spec.audit.syscalls." + c)}
	}
	if p.nnp != "" {
		own.nnp, own.nnpFrom = p.nnp, p.source("spec.noNewPrivileges")
	}
	if p.delivery != "" {
		own.delivery, own.deliveryFrom = p.delivery, p.source("spec.audit.delivery")
	}
	if p.onLoss != "" {
		own.onLoss, own.onLossFrom = p.onLoss, p.source("spec.audit.onLoss")
	}
	if p.durability != "" {
		own.durable, own.durableFrom = p.durability, p.source("spec.audit.durability")
	}
	if p.durability == DurabilitySynced && p.delivery == "" { // a call that does not wait for its record cannot wait for the disk
		own.delivery, own.deliveryFrom = DeliveryOrdered, own.durableFrom
	}
	if p.layer != nil {
		own.layers = []layerOf{{p.layer, p}}
	}
	if len(p.extends) > 0 && !p.replace {
		return e.tighten(own)
	}
	base := *e
	base.nnp, base.nnpFrom = own.nnp, own.nnpFrom
	base.delivery, base.deliveryFrom = own.delivery, own.deliveryFrom
	base.onLoss, base.onLossFrom = own.onLoss, own.onLossFrom
	base.durable, base.durableFrom = own.durable, own.durableFrom
	if p.layer != nil {
		base.layers = nil
	}
	base.limits = without(e.limits, p.limits)
	if p.auditStated {
		base.classes, base.syscalls = nil, nil
	}
	if p.stall != 0 {
		base.stall = 0
	}
	if p.flush != 0 {
		base.flush = 0
	}
	return base.tighten(own)
}

// without returns l less the limits that o states.
func without(l, o cgroups.Limits) cgroups.Limits {
	if o.CPU != nil {
		l.CPU = nil
	}
	if o.CPUWeight != nil {
		l.CPUWeight = nil
	}
	if o.CPUSet != "" {
		l.CPUSet = ""
	}
	if o.Memory != nil {
		l.Memory = nil
	}
	if o.MemoryHigh != nil {
		l.MemoryHigh = nil
	}
	if o.Swap != nil {
		l.Swap = nil
	}
	if o.Pids != nil {
		l.Pids = nil
	}
	if len(o.Hugepages) > 0 {
		l.Hugepages = nil
	}
	if len(o.IO) > 0 {
		l.IO = nil
	}
	return l
}

// tightenLimits is Limits.Tighten with the documents that each value came from.
func tightenLimits(a, b cgroups.Limits, aFrom, bFrom map[string][]Source) (cgroups.Limits, map[string][]Source) {
	t, from := a.Tighten(b), map[string][]Source{}
	for _, name := range limitNames() {
		value := FormatLimit(t, name)
		switch {
		case value == "":
		case value == FormatLimit(a, name):
			from[name] = aFrom[name]
		case value == FormatLimit(b, name):
			from[name] = bFrom[name]
		default: // of several sizes, devices or sets: some from each
			from[name] = union(aFrom[name], bFrom[name])
		}
	}
	return t, from
}

func union(a, b []Source) []Source {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func unite(a, b map[string][]Source) map[string][]Source {
	out := maps.Clone(a)
	if out == nil {
		out = map[string][]Source{}
	}
	for name, from := range b {
		out[name] = union(out[name], from)
	}
	return out
}

func (e *effect) resolved(name string) *Resolved {
	r := &Resolved{
		Name: name, NoNewPrivileges: e.nnp, Limits: e.limits, Delivery: e.delivery, OnLoss: e.onLoss, StallTimeout: e.stall,
		Durability: e.durable, FlushInterval: e.flush,
		Provenance: Provenance{
			Profiles: e.profiles, NoNewPrivileges: e.nnpFrom, Limits: e.limitFrom,
			Classes: e.classes, Syscalls: e.syscalls, Delivery: e.deliveryFrom, OnLoss: e.onLossFrom, StallTimeout: e.stallFrom,
			Durability: e.durableFrom, FlushInterval: e.flushFrom,
			Rules: map[RuleKey]RuleSource{},
		},
	}
	for _, l := range e.layers {
		r.Layers = append(r.Layers, *l.layer)
		l.of.ruleSources(r.Provenance.Rules)
	}
	r.finish()
	return r
}

// finish derives what follows from the rest: the audit rules and the digest.
func (r *Resolved) finish() {
	r.Classes, r.Audit = nil, nil
	for _, c := range seccomp.Classes() {
		if _, ok := r.Provenance.Classes[c.Name]; ok {
			r.Classes = append(r.Classes, c.Name)
			r.Audit = append(r.Audit, c.Rules...)
		}
	}
	if calls := slices.Sorted(maps.Keys(r.Provenance.Syscalls)); len(calls) > 0 {
		r.Audit = append(r.Audit, seccomp.AuditRule{ID: ClassSyscalls, Class: ClassSyscalls, Syscalls: calls})
	}
	r.Digest = r.digest()
}

// WithFloor returns r with the node's floor under it: the floor's layers come first, and every part is the
// stricter of both. A passthrough profile over a floor is the floor, under its own name. Neither operand changes.
func (r *Resolved) WithFloor(floor *Resolved) *Resolved {
	if floor == nil || floor.Passthrough {
		return r
	}
	if r.Passthrough {
		out := *floor
		out.Name = r.Name
		out.Digest = out.digest()
		return &out
	}
	t := floor.effect().tighten(r.effect())
	out := t.resolved(r.Name)
	out.Layers = slices.Clone(floor.Layers)
	for _, l := range r.Layers {
		// Layers of one name are one document: both come from one Set.
		if !slices.ContainsFunc(out.Layers, func(o seccomp.Layer) bool { return o.Name == l.Name }) {
			out.Layers = append(out.Layers, l)
		}
	}
	maps.Copy(out.Provenance.Rules, floor.Provenance.Rules)
	maps.Copy(out.Provenance.Rules, r.Provenance.Rules)
	out.Digest = out.digest()
	return out
}

// effect turns a resolved profile back, but for its layers.
func (r *Resolved) effect() *effect {
	p := r.Provenance
	return &effect{
		profiles: p.Profiles, nnp: r.NoNewPrivileges, nnpFrom: p.NoNewPrivileges,
		limits: r.Limits, limitFrom: p.Limits, classes: p.Classes, syscalls: p.Syscalls,
		delivery: r.Delivery, deliveryFrom: p.Delivery, onLoss: r.OnLoss, onLossFrom: p.OnLoss, stall: r.StallTimeout, stallFrom: p.StallTimeout,
		durable: r.Durability, durableFrom: p.Durability, flush: r.FlushInterval, flushFrom: p.FlushInterval,
	}
}

// cycles finds profiles that extend themselves.
func (s *Set) cycles(r *reader) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(p *agentProfile)
	visit = func(p *agentProfile) {
		state[p.name] = visiting
		path = append(path, p.name)
		for _, name := range p.extends {
			parent, ok := s.profiles[name]
			switch {
			case !ok:
			case state[name] == visiting:
				circle := append(slices.Clone(path[slices.Index(path, name):]), name)
				r.add(p.fault("spec.extends."+name, "extends itself: "+strings.Join(circle, " → "), "expected profiles that do not lead back here"))
			case state[name] == 0:
				visit(parent)
			}
		}
		path = path[:len(path)-1]
		state[p.name] = done
	}
	for _, p := range s.sorted() {
		if state[p.name] == 0 {
			visit(p)
		}
	}
}
