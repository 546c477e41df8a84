// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"strings"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/profile/form"
	"metsuke.dev/metsuke/seccomp"
)

func profileSchema() (*Schema, error) {
	f := profile.AgentProfileForm()
	s := document("AgentProfile says what the containers of pods may do, what they may use, and what of it is recorded.", f, statusSchema(),
		notPod, Rule{
			Rule:    fmt.Sprintf("!(self.metadata.name in ['%s', '%s'])", profile.Baseline, profile.Passthrough),
			Message: "the profile is built in; expected another name; to build on it write extends: [" + profile.Baseline + "]",
		}, Rule{
			Rule:    "!has(self.spec.extends) || !(self.metadata.name in self.spec.extends)",
			Message: "extends itself; expected profiles that do not lead back here",
		})
	if err := rulesOfExtends(s.at("spec")); err != nil {
		return nil, err
	}
	rulesOfSeccomp(s.at("spec.seccomp"))
	rulesOfLimits(s.at("spec.limits"), f.At("limits"))
	s.at("spec.audit.stallTimeout").Validations = durationRules(profile.MinStall, profile.MaxStall, "10s")
	s.at("spec.audit.flushInterval").Validations = durationRules(profile.MinFlush, profile.MaxFlush, "1s")
	s.at("spec.audit").Validations = []Rule{{
		Rule: fmt.Sprintf("!has(self.durability) || !has(self.delivery) || self.durability != '%s' || self.delivery != '%s'", profile.DurabilitySynced, profile.DeliveryBuffered),
		Message: fmt.Sprintf("%s and %s cannot both be: a call that does not wait for its record cannot wait until it is on the disk; expected delivery: ordered with durability: synced",
			profile.DurabilitySynced, profile.DeliveryBuffered),
		FieldPath: ".durability",
	}}
	return s, nil
}

func durationRules(least, longest time.Duration, example string) []Rule {
	return []Rule{{
		Rule:    fmt.Sprintf(`self.matches(r'%s') && duration(self) >= duration('%s') && duration(self) <= duration('%s')`, durationPattern, least, longest),
		Message: fmt.Sprintf("expected a duration from %s to %s, such as %s", least, longest, example),
	}}
}

func bindingSchema() *Schema {
	s := document("ProfileBinding says which profile the pods of namespaces get, and which they may choose.", profile.BindingForm(), statusSchema(), notPod)
	rule := s.at("spec.containers").Items
	rule.Validations = []Rule{{
		Rule:    "has(self.names) && size(self.names) > 0 || has(self.images) && size(self.images) > 0",
		Message: "matches no container, or all; expected names or images; what all containers get is default",
	}}
	return s
}

var notPod = Rule{
	Rule:    fmt.Sprintf("self.metadata.name != '%s'", seccomp.OriginPod),
	Message: fmt.Sprintf("%q stands for the pod's own seccomp profile in the events; expected another name", seccomp.OriginPod),
}

// durationPattern is the syntax of time.ParseDuration.
const durationPattern = `^[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`

// rulesOfExtends says what a child of the built-in profiles may not say. What other parents say, one document does not show.
func rulesOfExtends(s *Schema) error {
	set, err := profile.Parse(nil)
	if err != nil {
		return err
	}
	base, err := set.Resolve(profile.Baseline)
	if err != nil {
		return err
	}
	s.at("extends").Validations = []Rule{{
		Rule:    fmt.Sprintf("!('%s' in self)", profile.Passthrough),
		Message: fmt.Sprintf("%q cannot be extended: there is nothing in it; expected %s, or no extends", profile.Passthrough, profile.Baseline),
	}}
	s.Validations = []Rule{{
		Rule:      "!has(self.replace) || !self.replace || has(self.extends) && size(self.extends) > 0",
		Message:   "there is nothing to replace, since the profile extends none; remove it, or add extends",
		FieldPath: ".replace",
	}}
	tightens := func(field string, strict, loose string) {
		s.Validations = append(s.Validations, Rule{
			Rule: fmt.Sprintf("!has(self.extends) || !('%s' in self.extends) || has(self.replace) && self.replace || !has(self.audit) || !has(self.audit.%s) || self.audit.%[2]s != '%s'",
				profile.Baseline, field, loose),
			Message:   fmt.Sprintf("%s would loosen %s, which comes from %s; a child may only tighten: remove it, or write replace: true", loose, strict, profile.Baseline),
			FieldPath: ".audit." + field,
		})
	}
	if base.Delivery == profile.DeliveryOrdered {
		tightens("delivery", string(base.Delivery), string(profile.DeliveryBuffered))
	}
	if base.OnLoss == profile.OnLossKill {
		tightens("onLoss", string(base.OnLoss), string(profile.OnLossContinue))
	}
	if base.NoNewPrivileges == profile.NNPTrue { // rules of CEL do not see the field: see form.BoolOrInherit
		s.AnyOf = []*Schema{
			{Properties: map[string]*Schema{"replace": {Enum: []any{true}}}, Required: []string{"replace"}},
			{Properties: map[string]*Schema{"extends": {Items: &Schema{Not: &Schema{Enum: []any{profile.Baseline}}}}}},
			{Properties: map[string]*Schema{"noNewPrivileges": {Not: &Schema{Enum: []any{string(profile.NNPInherit)}}}}},
		}
	}
	return nil
}

func rulesOfSeccomp(s *Schema) {
	s.Validations = []Rule{{
		Rule:      "!has(self.defaultErrno) || has(self.default) && self.default == 'deny'",
		Message:   "has no use, since nothing is denied by default; expected default: deny beside it",
		FieldPath: ".defaultErrno",
	}}
	for _, action := range []seccomp.Action{seccomp.ActionDeny, seccomp.ActionKill, seccomp.ActionAllow} {
		list := s.at(action.String())
		list.Validations = []Rule{{
			Rule:    "self.all(r, !has(r.id) || self.exists_one(s, has(s.id) && s.id == r.id))",
			Message: "the id of a rule is that of another too",
		}, {
			// A rule without an id is called after its place.
			Rule: fmt.Sprintf("self.all(r, !has(r.id) || !r.id.matches('^%s-[1-9][0-9]{0,2}$') || int(r.id.substring(%d)) > size(self) || has(self[int(r.id.substring(%[2]d)) - 1].id))",
				action, len(action.String())+1),
			Message: "the id of a rule is that which a rule without one gets; expected another id, or ids for both",
		}}
		list.at("id").Validations = []Rule{{
			Rule:    fmt.Sprintf("!(self in [%s])", quoted(profile.ReservedRuleIDs())),
			Message: "stands in events for what no rule decided; expected another id",
		}}
		args := list.at("args")
		args.Validations = []Rule{contradictionRule()}
		args.Items.Validations = conditionRules()
	}
}

func rulesOfLimits(s *Schema, f *form.Field) {
	s.Validations = []Rule{{
		Rule: fmt.Sprintf("!has(self.%[1]s) || !has(self.%[2]s) || !isQuantity(string(self.%[1]s)) || !isQuantity(string(self.%[2]s)) || "+
			"quantity(string(self.%[1]s)).compareTo(quantity(string(self.%[2]s))) <= 0", cgroups.MemoryHigh, cgroups.Memory),
		Message:   "is above memory, so it is never reached; expected less than memory",
		FieldPath: "." + cgroups.MemoryHigh,
	}}
	var stated []string
	for _, r := range cgroups.Resources() {
		limit, field := s.at(r.Name), f.At(r.Name)
		is := fmt.Sprintf("n == '%s' && has(self.%[1]s)", r.Name)
		if field.Kind == form.Mapping {
			is += fmt.Sprintf(" && size(self.%s) > 0", r.Name)
			limit.Validations = []Rule{nameRule(field.Names)}
		}
		stated = append(stated, is)
	}
	s.Validations = append(s.Validations, Rule{
		Rule:      "!has(self.bestEffort) || self.bestEffort.all(n, " + strings.Join(stated, " || ") + ")",
		Message:   "names a limit that is not stated here; expected names of limits that stand beside it",
		FieldPath: ".bestEffort",
	})
}

func nameRule(kind form.Kind) Rule {
	if kind == form.Device {
		return Rule{
			Rule:    fmt.Sprintf("self.all(k, k.matches(r'%s'))", devicePattern),
			Message: "a name is no device: write a path under /dev or major:minor",
		}
	}
	return Rule{
		Rule:    fmt.Sprintf("self.all(k, k.matches(r'%s'))", cgroups.PageSizePattern),
		Message: "a name is not a page size: write it as the kernel does, such as 2MB or 1GB",
	}
}

func quoted(words []string) string { return "'" + strings.Join(words, "', '") + "'" }
