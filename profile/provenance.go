// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/seccomp"
)

// Source is the place of one part of a profile.
type Source struct {
	Profile string // or binding
	File    string
	Line    int
}

// String returns "profile (file:line)".
func (s Source) String() string { return fmt.Sprintf("%s (%s:%d)", s.Profile, s.File, s.Line) }

// RuleKey names a rule of a resolved profile.
type RuleKey struct {
	Layer  string
	Action seccomp.Action // ActionDeny, ActionKill or ActionAllow
	ID     string
}

// RuleSource is a rule's place, and why it is there if its document says so.
type RuleSource struct {
	Source
	Reason string
}

// Provenance says where each part of a resolved profile came from. Where several documents say the same the first,
// parents before children, is named.
type Provenance struct {
	Profiles        []Source // every document, parents first
	NoNewPrivileges Source
	Rules           map[RuleKey]RuleSource
	Limits          map[string][]Source // by name of the limit
	Classes         map[string][]Source // by audit class
	Syscalls        map[string][]Source // by call
	Delivery        Source
	OnLoss          Source
	StallTimeout    Source
	Durability      Source
	FlushInterval   Source
}

// ruleKey names a rule of one document.
type ruleKey struct {
	action seccomp.Action
	id     string
}

func (p *agentProfile) ruleSources(to map[RuleKey]RuleSource) {
	for action, rules := range ruleLists(p.layer) {
		for _, rule := range rules {
			k := ruleKey{action, rule.ID}
			to[RuleKey{p.name, action, rule.ID}] = RuleSource{p.source(p.ruleAt[k]), p.reasons[k]}
		}
	}
}

// ruleLists returns the lists of a layer by what they do, in the order in which they are tried.
func ruleLists(l *seccomp.Layer) func(func(seccomp.Action, []seccomp.Rule) bool) {
	return func(yield func(seccomp.Action, []seccomp.Rule) bool) {
		_ = yield(seccomp.ActionKill, l.Kill) && yield(seccomp.ActionAllow, l.Allow) && yield(seccomp.ActionDeny, l.Deny)
	}
}

// The canonical form that the digest is made over: what decides, and nothing else. A change of it changes every
// digest, so it has a version.
type canonical struct {
	Version         int
	Name            string
	Passthrough     bool
	NoNewPrivileges NNP
	Layers          []canonicalLayer
	Audit           []seccomp.AuditRule
	Limits          []canonicalLimit
	Delivery        Delivery
	OnLoss          OnLoss
	StallTimeout    time.Duration
	// What is not stated is left out, so that profiles of before these were have the digest that they had.
	Durability    Durability    `json:",omitempty"`
	FlushInterval time.Duration `json:",omitempty"`
}

type canonicalLayer struct {
	Name              string
	Default           seccomp.Action
	DefaultErrno      uint16
	Kill, Allow, Deny []seccomp.Rule
	Architectures     []seccomp.Arch
}

type canonicalLimit struct {
	Name, Value string
	BestEffort  bool
}

// digest returns the sha256 of the canonical form, hex.
func (r *Resolved) digest() string {
	c := canonical{
		Version: 2, Name: r.Name, Passthrough: r.Passthrough, NoNewPrivileges: r.NoNewPrivileges,
		Delivery: r.Delivery, OnLoss: r.OnLoss, StallTimeout: r.StallTimeout, FlushInterval: r.FlushInterval,
	}
	if r.Durability == DurabilitySynced {
		c.Durability = r.Durability
	}
	for _, l := range r.Layers {
		archs := slices.Clone(l.Architectures)
		slices.Sort(archs)
		c.Layers = append(c.Layers, canonicalLayer{
			Name: l.Name, Default: l.Default, DefaultErrno: l.DefaultErrno,
			Kill: canonicalRules(l.Kill), Allow: canonicalRules(l.Allow), Deny: canonicalRules(l.Deny), Architectures: archs,
		})
	}
	for _, a := range r.Audit {
		a.Syscalls = sortedClone(a.Syscalls)
		c.Audit = append(c.Audit, a)
	}
	for _, l := range cgroups.Resources() {
		if r.Limits.Has(l.Name) {
			c.Limits = append(c.Limits, canonicalLimit{l.Name, FormatLimit(r.Limits, l.Name), r.Limits.BestEffort[l.Name]})
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		panic("profile: the canonical form is made of plain values: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func canonicalRules(rules []seccomp.Rule) []seccomp.Rule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].Syscalls = sortedClone(out[i].Syscalls)
	}
	return out
}

func sortedClone(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
