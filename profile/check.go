// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/seccomp"
)

var does = map[seccomp.Action]string{seccomp.ActionKill: "kills", seccomp.ActionAllow: "allows", seccomp.ActionDeny: "denies"}

// consistent refuses rules of one document that contradict each other: those that another rule, which is tried
// before them, leaves without effect. The order is kill, allow, deny.
func (r *reader) consistent(p *agentProfile) {
	type decided struct {
		action seccomp.Action
		id     string
		args   []seccomp.Cond
	}
	by := map[string][]decided{} // by call, the rules that are tried before
	for action, rules := range ruleLists(p.layer) {
		for _, rule := range rules {
			for _, call := range rule.Syscalls {
				for _, d := range by[call] {
					if len(d.args) > 0 && !slices.Equal(d.args, rule.Args) {
						continue
					}
					if d.action == action && len(d.args) == 0 && len(rule.Args) > 0 {
						continue // the wider rule of the same list only names the other's calls
					}
					same := "for every argument"
					if len(d.args) > 0 {
						same = "under the same conditions"
					}
					msg := fmt.Sprintf("%s of %s can never match: rule %s, which is tried first, %s it %s", action, call, diagnostic.Quote(d.id), does[d.action], same)
					if d.action == action {
						msg = fmt.Sprintf("%s of %s is said twice: rule %s %s it %s", action, call, diagnostic.Quote(d.id), does[d.action], same)
					}
					r.add(p.fault(p.ruleAt[ruleKey{action, rule.ID}], msg, "the order is kill, allow, deny; remove one of them, or give it other args"))
					break
				}
			}
			for _, call := range rule.Syscalls {
				by[call] = append(by[call], decided{action, rule.ID, rule.Args})
			}
		}
	}
}

// loosening refuses what would loosen what is inherited and can mean nothing else, and limits that no container
// could start with. Where a child is merely less strict the inherited part holds, and [Set.Warnings] says so.
func (s *Set) loosening(r *reader) {
	known := map[string]*effect{}
	for _, p := range s.sorted() {
		in := s.inherited(p, known)
		const hint = "a child may only tighten: remove it, or write replace: true, and what this document states takes the place of what it inherits"
		if len(p.extends) > 0 && !p.replace {
			if p.nnp == NNPInherit && in.nnp == NNPTrue {
				r.add(p.fault("spec.noNewPrivileges", "inherit would loosen true, which comes from "+in.nnpFrom.String(), hint))
			}
			if p.delivery == DeliveryBuffered && in.delivery == DeliveryOrdered {
				r.add(p.fault("spec.audit.delivery", "buffered would loosen ordered, which comes from "+in.deliveryFrom.String(), hint))
			}
			if p.onLoss == OnLossContinue && in.onLoss == OnLossKill {
				r.add(p.fault("spec.audit.onLoss", "continue would loosen kill, which comes from "+in.onLossFrom.String(), hint))
			}
			if p.durability == DurabilityBatched && in.durable == DurabilitySynced {
				r.add(p.fault("spec.audit.durability", "batched would loosen synced, which comes from "+in.durableFrom.String(), hint))
			}
		}
		e := s.effective(p, known)
		if e.durable == DurabilitySynced && e.delivery == DeliveryBuffered {
			field, other := "spec.audit.durability", e.deliveryFrom
			if p.durability == "" {
				field, other = "spec.audit.delivery", e.durableFrom
			}
			r.add(p.fault(field, fmt.Sprintf("%s and %s cannot both be (the other comes from %s): a call that does not wait for its record cannot wait until it is on the disk",
				DurabilitySynced, DeliveryBuffered, other), "expected delivery: ordered with durability: synced"))
		}
		if e.limits.CPUSet == cgroups.NoCPUs {
			r.add(p.fault("spec.limits.cpuset", "with what the profile extends no CPU is left: "+sourceList(e.limitFrom[cgroups.CPUSet]),
				"expected CPU sets that have a CPU in common"))
		}
	}
}

// Warnings returns what is not wrong but has no effect, or probably another one than was meant: each in the form
// of an error, in the order of the files.
func (s *Set) Warnings() []*Error {
	r := &reader{}
	known := map[string]*effect{}
	for _, p := range s.sorted() {
		if p.builtin {
			continue
		}
		in := s.inherited(p, known)
		if !p.replace {
			p.warnLimits(r, in)
			p.warnAllow(r, in)
		}
		p.warnLayer(r)
	}
	for _, b := range s.bindings {
		for i, c := range b.containers {
			if c.profile == Passthrough && len(c.images) == 0 {
				r.add(b.fault(fmt.Sprintf("spec.containers[%d].profile", i), "gives passthrough to whoever names a container so",
					"add images that the namespace cannot write"))
			}
		}
	}
	return diagnostic.All(diagnostic.Join(r.errs))
}

func (p *agentProfile) warnLimits(r *reader, in *effect) {
	for _, name := range limitNames() {
		if !p.limits.Has(name) || !in.limits.Has(name) {
			continue
		}
		own, inherited := FormatLimit(p.limits, name), FormatLimit(in.limits, name)
		if t := FormatLimit(in.limits.Tighten(p.limits), name); t == inherited && t != own {
			r.add(p.fault("spec.limits."+name, fmt.Sprintf("%s is above %s, which holds, from %s", own, inherited, sourceList(in.limitFrom[name])),
				"lower it, or write replace: true"))
		}
	}
}

func (p *agentProfile) warnAllow(r *reader, in *effect) {
	if p.layer == nil {
		return
	}
	for _, rule := range p.layer.Allow {
		for _, call := range rule.Syscalls {
			for _, l := range in.layers {
				if by, forbidden := forbids(l.layer, call); forbidden {
					r.add(p.fault(p.ruleAt[ruleKey{seccomp.ActionAllow, rule.ID}],
						fmt.Sprintf("allow of %s does not lift %s of %s: the strictest layer wins", call, by, l.layer.Name),
						"remove it, or write replace: true and a seccomp part that stands alone"))
				}
			}
		}
	}
	for _, a := range p.layer.Architectures {
		for _, l := range in.layers {
			if !slices.Contains(l.layer.Architectures, a) {
				r.add(p.fault("spec.seccomp", fmt.Sprintf("architectures: %s is not permitted by %s, which is inherited: the strictest layer wins", a.Name(), l.layer.Name),
					"remove it, or write replace: true and a seccomp part that stands alone"))
			}
		}
	}
}

// forbids says that a layer forbids a call whatever its arguments, and by which rule.
func forbids(l *seccomp.Layer, call string) (rule string, forbidden bool) {
	named := func(rules []seccomp.Rule, unconditional bool) (string, bool) {
		for _, rule := range rules {
			if slices.Contains(rule.Syscalls, call) && !(unconditional && len(rule.Args) > 0) {
				return rule.ID, true
			}
		}
		return "", false
	}
	if id, ok := named(l.Kill, true); ok {
		return "kill " + id, true
	}
	if _, ok := named(l.Allow, false); ok {
		return "", false
	}
	if id, ok := named(l.Deny, true); ok {
		return "deny " + id, true
	}
	return "default: deny", l.Default == seccomp.ActionDeny
}

func (p *agentProfile) warnLayer(r *reader) {
	if p.layer == nil {
		return
	}
	if p.layer.Default == seccomp.ActionDeny {
		for _, call := range []string{"execve", "exit_group"} {
			if _, forbidden := forbids(p.layer, call); forbidden {
				r.add(p.fault("spec.seccomp", "denies "+call+", without which no container starts", "add it to allow"))
			}
		}
		return
	}
	denied := map[string]bool{}
	for _, rule := range p.layer.Deny {
		for _, call := range rule.Syscalls {
			denied[call] = true
		}
	}
	for _, rule := range p.layer.Allow {
		if !slices.ContainsFunc(rule.Syscalls, func(call string) bool { return denied[call] }) {
			r.add(p.fault(p.ruleAt[ruleKey{seccomp.ActionAllow, rule.ID}], "has no effect: no deny rule of this document names these calls, and the default is allow",
				"remove it, or deny the calls beside it"))
		}
	}
}

func sourceList(from []Source) string {
	text := ""
	for i, s := range from {
		if i > 0 {
			text += ", "
		}
		text += s.String()
	}
	return text
}
