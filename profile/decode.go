// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/seccomp"
)

// nameForm is that of a Kubernetes name, short enough for a label. Names become layers and stand in the events.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

const nameHint = "expected lower-case letters, digits, - and ., at most 63, with a letter or digit at both ends"

// Bounds of stallTimeout.
const (
	minStall = 100 * time.Millisecond
	maxStall = 10 * time.Minute
)

// document reads one document into p or b, of which the other is nil.
func (r *reader) document(n *yaml.Node, builtin bool) (p *agentProfile, b *binding) {
	if n.Kind != yaml.MappingNode {
		r.wrong(n, "", "a document with apiVersion, kind, metadata and spec")
		return nil, nil
	}
	// The kind first: it says what the rest must be.
	kind, version := "", ""
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "kind":
			kind = n.Content[i+1].Value
		case "apiVersion":
			version = n.Content[i+1].Value
		}
	}
	if version != APIVersion && version != "" {
		// Another version may differ in everything else.
		r.mapping(n, "", []key{
			{"apiVersion", true, func(n *yaml.Node, f string) { r.word(n, f, APIVersion) }},
			{"kind", false, ignore}, {"metadata", false, ignore}, {"spec", false, ignore},
		})
		return nil, nil
	}
	var d *document
	spec := ignore
	switch kind {
	case KindProfile:
		p = &agentProfile{builtin: builtin}
		d, spec = &p.document, func(n *yaml.Node, f string) { r.profileSpec(p, n, f) }
	case KindBinding:
		b = &binding{}
		d, spec = &b.document, func(n *yaml.Node, f string) { r.bindingSpec(b, n, f) }
	default:
		d = &document{}
	}
	d.file, d.at = r.file, map[string]place{"metadata.name": {n.Line, n.Column}}
	before := len(r.errs)
	r.mapping(n, "", []key{
		{"apiVersion", true, func(n *yaml.Node, f string) { r.word(n, f, APIVersion) }},
		{"kind", true, func(n *yaml.Node, f string) { r.word(n, f, KindProfile, KindBinding) }},
		{"metadata", true, func(n *yaml.Node, f string) { r.metadata(d, n, f) }},
		{"spec", true, spec},
	})
	if p != nil && p.layer != nil {
		p.layer.Name = p.name // metadata may come after spec
		if len(r.errs) == before {
			r.consistent(p)
		}
	}
	return p, b
}

func ignore(*yaml.Node, string) {}

func (d *document) note(n *yaml.Node, field string) { d.at[field] = place{n.Line, n.Column} }

// noteEach notes the entries of a list of names under the names.
func (d *document) noteEach(n *yaml.Node, field string) {
	d.note(n, field)
	for _, c := range n.Content {
		d.note(c, field+"."+c.Value)
	}
}

// metadata takes what Kubernetes tools put there; only the name means something.
func (r *reader) metadata(d *document, n *yaml.Node, field string) {
	words := func(n *yaml.Node, field string) {
		r.pairs(n, field, func(k, v *yaml.Node) {
			if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
				r.wrong(v, join(field, oneLine(k.Value)), "a string")
			}
		})
	}
	r.mapping(n, field, []key{
		{"name", true, func(n *yaml.Node, field string) {
			s, ok := r.text(n, field)
			switch {
			case !ok:
			case !nameForm.MatchString(s):
				r.fail(n, field, diagnostic.Quote(s)+" is not a name", nameHint)
			case s == seccomp.OriginPod:
				r.fail(n, field, `"pod" stands for the pod's own seccomp profile in the events`, "expected another name")
			default:
				d.name = s
				d.note(n, field)
			}
		}},
		{"labels", false, words},
		{"annotations", false, words},
	})
}

func (r *reader) names(d *document, n *yaml.Node, field string) []string {
	d.noteEach(n, field)
	return r.strings(n, field, func(s string) (string, string) {
		if !nameForm.MatchString(s) {
			return diagnostic.Quote(s) + " is not the name of a profile", nameHint
		}
		return "", ""
	})
}

func (r *reader) profileSpec(p *agentProfile, n *yaml.Node, field string) {
	keys := []key{
		{"description", false, func(n *yaml.Node, f string) { p.description, _ = r.text(n, f) }},
		{"extends", false, func(n *yaml.Node, f string) { p.extends = r.names(&p.document, n, f) }},
		{"replace", false, func(n *yaml.Node, f string) { p.note(n, f); p.replace = r.boolean(n, f) }},
		{"noNewPrivileges", false, func(n *yaml.Node, f string) {
			p.note(n, f)
			p.nnp = NNP(r.word(n, f, string(NNPTrue), string(NNPInherit)))
		}},
		{"seccomp", false, func(n *yaml.Node, f string) { r.seccomp(p, n, f) }},
		{"limits", false, func(n *yaml.Node, f string) { r.limits(p, n, f) }},
		{"audit", false, func(n *yaml.Node, f string) { r.audit(p, n, f) }},
	}
	if p.builtin {
		keys = append(keys, key{"passthrough", false, func(n *yaml.Node, f string) { p.passthrough = r.boolean(n, f) }})
	}
	r.mapping(n, field, keys)
}

func (r *reader) audit(p *agentProfile, n *yaml.Node, field string) {
	r.mapping(n, field, []key{
		{"classes", false, func(n *yaml.Node, f string) {
			p.auditStated = true
			p.noteEach(n, f)
			p.classes = r.strings(n, f, func(s string) (string, string) {
				if _, ok := seccomp.KnownClass(s); !ok {
					var known []string
					for _, c := range seccomp.Classes() {
						known = append(known, c.Name)
					}
					return diagnostic.Quote(s) + " is not an audit class", diagnostic.Expected(s, known)
				}
				return "", ""
			})
		}},
		{"syscalls", false, func(n *yaml.Node, f string) {
			p.auditStated = true
			p.noteEach(n, f)
			p.syscalls = r.syscalls(n, f)
		}},
		{"onLoss", false, func(n *yaml.Node, f string) {
			p.note(n, f)
			p.onLoss = OnLoss(r.word(n, f, string(OnLossKill), string(OnLossContinue)))
		}},
		{"stallTimeout", false, func(n *yaml.Node, f string) {
			p.note(n, f)
			expected := fmt.Sprintf("a duration from %s to %s, such as 10s", minStall, maxStall)
			s, ok := r.number(n, f, expected)
			if !ok {
				return
			}
			d, err := time.ParseDuration(s)
			if err != nil || d < minStall || d > maxStall {
				r.wrong(n, f, expected)
				return
			}
			p.stall = d
		}},
	})
}

func (r *reader) bindingSpec(b *binding, n *yaml.Node, field string) {
	name := func(to *string) func(n *yaml.Node, f string) {
		return func(n *yaml.Node, f string) {
			b.note(n, f)
			s, ok := r.text(n, f)
			if ok && !nameForm.MatchString(s) {
				r.fail(n, f, diagnostic.Quote(s)+" is not the name of a profile", nameHint)
				return
			}
			*to = s
		}
	}
	r.mapping(n, field, []key{
		{"namespaces", true, func(n *yaml.Node, f string) {
			b.noteEach(n, f)
			b.namespaces = r.strings(n, f, func(s string) (string, string) {
				switch {
				case s == "*" || namespaceForm.MatchString(s):
					return "", ""
				case strings.ContainsAny(s, "*?["):
					return diagnostic.Quote(s) + ": namespaces are not matched by pattern", `expected the name of a namespace, or "*" for all that no binding names`
				}
				return diagnostic.Quote(s) + " is not a namespace", `expected the name of a namespace, or "*"`
			})
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				r.fail(n, f, "names no namespace", `expected names, or "*"`)
			}
		}},
		{"default", false, name(&b.fallback)},
		{"allowed", false, func(n *yaml.Node, f string) { b.allowed = r.names(&b.document, n, f) }},
		{"containers", false, func(n *yaml.Node, f string) {
			r.list(n, f, maxRules, func(n *yaml.Node, f string) {
				c := containerRule{}
				r.mapping(n, f, []key{
					{"names", false, func(n *yaml.Node, f string) { c.names = r.strings(n, f, checkGlob) }},
					{"images", false, func(n *yaml.Node, f string) { c.images = r.strings(n, f, checkGlob) }},
					{"profile", true, name(&c.profile)},
				})
				if n.Kind == yaml.MappingNode && len(c.names)+len(c.images) == 0 {
					r.fail(n, f, "matches no container, or all", "expected names or images; what all containers get is default")
				}
				b.note(n, f)
				b.containers = append(b.containers, c)
			})
		}},
	})
}

// namespaceForm is an RFC 1123 label.
var namespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func checkGlob(s string) (msg, hint string) {
	if len(s) > 256 || strings.ContainsAny(s, " \t\n") || strings.Contains(s, "***") {
		return diagnostic.Quote(s) + " is not a pattern", "expected a name in which * stands for anything but /, and ** for anything"
	}
	return "", ""
}
