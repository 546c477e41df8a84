// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

// profileView is a resolved profile as JSON and YAML show it: every part with where it came from.
type profileView struct {
	Name            string      `json:"name"`
	Digest          string      `json:"digest"`
	Passthrough     bool        `json:"passthrough,omitempty"`
	Profiles        []fromView  `json:"profiles"`
	NoNewPrivileges valueView   `json:"noNewPrivileges"`
	Layers          []layerView `json:"layers"`
	Limits          []limitView `json:"limits"`
	Audit           auditView   `json:"audit"`
}

type fromView struct {
	Profile string `json:"profile"`
	File    string `json:"file"`
	Line    int    `json:"line"`
}

type valueView struct {
	Value string     `json:"value"`
	From  []fromView `json:"from,omitempty"`
}

type layerView struct {
	Name          string     `json:"name"`
	Default       string     `json:"default"`
	DefaultErrno  string     `json:"defaultErrno,omitempty"`
	Architectures []string   `json:"architectures,omitempty"`
	Rules         []ruleView `json:"rules,omitempty"`
}

type ruleView struct {
	Action   string     `json:"action"`
	ID       string     `json:"id"`
	Syscalls []string   `json:"syscalls"`
	Args     []condView `json:"args,omitempty"`
	Errno    string     `json:"errno,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	From     fromView   `json:"from"`

	condition string // for people
}

type condView struct {
	Index uint8  `json:"index"`
	Op    string `json:"op"`
	Value string `json:"value"`
	Mask  string `json:"mask,omitempty"`
}

type limitView struct {
	Name       string     `json:"name"`
	Value      string     `json:"value"`
	BestEffort bool       `json:"bestEffort,omitempty"`
	From       []fromView `json:"from"`
}

type auditView struct {
	Classes       []valueView `json:"classes"`
	Syscalls      []valueView `json:"syscalls,omitempty"`
	Delivery      valueView   `json:"delivery"`
	OnLoss        valueView   `json:"onLoss"`
	StallTimeout  valueView   `json:"stallTimeout"`
	Durability    valueView   `json:"durability"`
	FlushInterval valueView   `json:"flushInterval"`
}

func newFromView(s profile.Source) fromView { return fromView{s.Profile, s.File, s.Line} }

func newFromViews(sources []profile.Source) []fromView {
	var out []fromView
	for _, s := range sources {
		out = append(out, newFromView(s))
	}
	return out
}

func newProfileView(r *profile.Resolved) profileView {
	p := r.Provenance
	one := func(value string, s profile.Source) valueView {
		if s.File == "" {
			return valueView{Value: value}
		}
		return valueView{value, []fromView{newFromView(s)}}
	}
	v := profileView{
		Name: r.Name, Digest: r.Digest, Passthrough: r.Passthrough, Profiles: newFromViews(p.Profiles),
		NoNewPrivileges: one(string(r.NoNewPrivileges), p.NoNewPrivileges),
		Layers:          []layerView{}, Limits: []limitView{},
		Audit: auditView{
			Classes: []valueView{}, Delivery: one(string(r.Delivery), p.Delivery), OnLoss: one(string(r.OnLoss), p.OnLoss),
			Durability: one(string(r.Durability), p.Durability), FlushInterval: valueView{Value: profile.DefaultFlushInterval.String()},
		},
	}
	for i := range r.Layers {
		v.Layers = append(v.Layers, newLayerView(&r.Layers[i], p.Rules))
	}
	for _, l := range cgroups.Resources() {
		if r.Limits.Has(l.Name) {
			v.Limits = append(v.Limits, limitView{l.Name, profile.FormatLimit(r.Limits, l.Name), r.Limits.BestEffort[l.Name], newFromViews(p.Limits[l.Name])})
		}
	}
	for _, c := range r.Classes {
		v.Audit.Classes = append(v.Audit.Classes, valueView{c, newFromViews(p.Classes[c])})
	}
	for _, c := range slices.Sorted(maps.Keys(p.Syscalls)) {
		v.Audit.Syscalls = append(v.Audit.Syscalls, valueView{c, newFromViews(p.Syscalls[c])})
	}
	v.Audit.StallTimeout = valueView{Value: "as configured"}
	if r.StallTimeout != 0 {
		v.Audit.StallTimeout = one(r.StallTimeout.String(), p.StallTimeout)
	}
	if r.FlushInterval != 0 {
		v.Audit.FlushInterval = one(r.FlushInterval.String(), p.FlushInterval)
	}
	return v
}

func newLayerView(l *seccomp.Layer, sources map[profile.RuleKey]profile.RuleSource) layerView {
	v := layerView{Name: l.Name, Default: l.Default.String()}
	if l.Default == seccomp.ActionDeny {
		v.DefaultErrno = profile.ErrnoName(l.DefaultErrno)
	}
	for _, a := range l.Architectures {
		v.Architectures = append(v.Architectures, a.Name())
	}
	add := func(action seccomp.Action, rules []seccomp.Rule) {
		for _, rule := range rules {
			s := sources[profile.RuleKey{Layer: l.Name, Action: action, ID: rule.ID}]
			r := ruleView{Action: action.String(), ID: rule.ID, Syscalls: rule.Syscalls, Reason: s.Reason, From: newFromView(s.Source), condition: profile.FormatArgs(rule.Args)}
			if action == seccomp.ActionDeny {
				r.Errno = profile.ErrnoName(rule.Errno)
			}
			for _, c := range rule.Args {
				cond := condView{Index: c.Index, Op: string(c.Op), Value: fmt.Sprintf("%#x", c.Value)}
				if c.Op == seccomp.OpMaskedEqual {
					cond.Mask = fmt.Sprintf("%#x", c.Mask)
				}
				r.Args = append(r.Args, cond)
			}
			v.Rules = append(v.Rules, r)
		}
	}
	// In the order in which they are tried.
	add(seccomp.ActionKill, l.Kill)
	add(seccomp.ActionAllow, l.Allow)
	add(seccomp.ActionDeny, l.Deny)
	return v
}
