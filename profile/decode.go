// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/profile/form"
	"metsuke.dev/metsuke/seccomp"
)

var nameForm = regexp.MustCompile(namePattern)

const nameHint = "expected lower-case letters, digits, - and ., at most 63, with a letter or digit at both ends"

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
		r.mapping(n, "", versionForm, readers{
			"apiVersion": func(n *yaml.Node, f string) { r.word(n, f, APIVersion) },
			"kind":       ignore, "metadata": ignore, "spec": ignore,
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
	r.mapping(n, "", documentForm, readers{
		"apiVersion": func(n *yaml.Node, f string) { r.word(n, f, APIVersion) },
		"kind":       func(n *yaml.Node, f string) { r.word(n, f, KindProfile, KindBinding) },
		"metadata":   func(n *yaml.Node, f string) { r.metadata(d, n, f) },
		"spec":       spec,
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
	r.mapping(n, field, metadataForm, readers{
		"name": func(n *yaml.Node, field string) {
			s, ok := r.text(n, field, 0)
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
		},
		"labels":      words,
		"annotations": words,
	})
}

func (r *reader) names(d *document, n *yaml.Node, field string, of *form.Field) []string {
	d.noteEach(n, field)
	return r.strings(n, field, of, func(s string) (string, string) {
		if !nameForm.MatchString(s) {
			return diagnostic.Quote(s) + " is not the name of a profile", nameHint
		}
		return "", ""
	})
}

func (r *reader) profileSpec(p *agentProfile, n *yaml.Node, field string) {
	of := profileForm
	if p.builtin {
		of = builtinForm
	}
	r.mapping(n, field, of, readers{
		"description": func(n *yaml.Node, f string) { p.description, _ = r.text(n, f, of.At("description").Most) },
		"extends":     func(n *yaml.Node, f string) { p.extends = r.names(&p.document, n, f, of.At("extends")) },
		"replace":     func(n *yaml.Node, f string) { p.note(n, f); p.replace = r.boolean(n, f) },
		"noNewPrivileges": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.nnp = NNP(r.word(n, f, of.At("noNewPrivileges").WordNames()...))
		},
		"seccomp":     func(n *yaml.Node, f string) { r.seccomp(p, n, f) },
		"limits":      func(n *yaml.Node, f string) { r.limits(p, n, f) },
		"audit":       func(n *yaml.Node, f string) { r.audit(p, n, f) },
		"passthrough": func(n *yaml.Node, f string) { p.passthrough = r.boolean(n, f) },
	})
}

func (r *reader) audit(p *agentProfile, n *yaml.Node, field string) {
	of := auditForm
	r.mapping(n, field, of, readers{
		"classes": func(n *yaml.Node, f string) {
			p.auditStated = true
			p.noteEach(n, f)
			p.classes = r.strings(n, f, of.At("classes"), func(s string) (string, string) {
				if _, ok := seccomp.KnownClass(s); !ok {
					return diagnostic.Quote(s) + " is not an audit class", diagnostic.Expected(s, of.At("classes").Entry.WordNames())
				}
				return "", ""
			})
		},
		"syscalls": func(n *yaml.Node, f string) {
			p.auditStated = true
			p.noteEach(n, f)
			p.syscalls = r.syscalls(n, f, of.At("syscalls"))
		},
		"delivery": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.delivery = Delivery(r.word(n, f, of.At("delivery").WordNames()...))
		},
		"onLoss": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.onLoss = OnLoss(r.word(n, f, of.At("onLoss").WordNames()...))
		},
		"stallTimeout": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.stall = r.duration(n, f, of.At("stallTimeout").Most, MinStall, MaxStall, "10s")
		},
		"durability": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.durability = Durability(r.word(n, f, of.At("durability").WordNames()...))
		},
		"flushInterval": func(n *yaml.Node, f string) {
			p.note(n, f)
			p.flush = r.duration(n, f, of.At("flushInterval").Most, MinFlush, MaxFlush, "1s")
		},
	})
}

// duration reads a duration within bounds; 0 if it is none. example is one that is.
func (r *reader) duration(n *yaml.Node, field string, most int, least, longest time.Duration, example string) time.Duration {
	expected := fmt.Sprintf("a duration from %s to %s, such as %s", least, longest, example)
	s, ok := r.number(n, field, most, expected)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > longest {
		r.wrong(n, field, expected)
		return 0
	}
	return d
}

func (r *reader) bindingSpec(b *binding, n *yaml.Node, field string) {
	name := func(to *string) func(n *yaml.Node, f string) {
		return func(n *yaml.Node, f string) {
			b.note(n, f)
			s, ok := r.text(n, f, 0)
			if ok && !nameForm.MatchString(s) {
				r.fail(n, f, diagnostic.Quote(s)+" is not the name of a profile", nameHint)
				return
			}
			*to = s
		}
	}
	of := bindingForm
	rule := of.At("containers").Entry
	r.mapping(n, field, of, readers{
		"namespaces": func(n *yaml.Node, f string) {
			b.noteEach(n, f)
			b.namespaces = r.strings(n, f, of.At("namespaces"), checkNamespace)
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				r.fail(n, f, "names no namespace", `expected names, or "*"`)
			}
		},
		"default": name(&b.fallback),
		"allowed": func(n *yaml.Node, f string) { b.allowed = r.names(&b.document, n, f, of.At("allowed")) },
		"containers": func(n *yaml.Node, f string) {
			r.list(n, f, of.At("containers").Most, func(n *yaml.Node, f string) {
				c := containerRule{}
				r.mapping(n, f, rule, readers{
					"names":   func(n *yaml.Node, f string) { c.names = r.strings(n, f, rule.At("names"), checkGlob) },
					"images":  func(n *yaml.Node, f string) { c.images = r.strings(n, f, rule.At("images"), checkGlob) },
					"profile": name(&c.profile),
				})
				if n.Kind == yaml.MappingNode && len(c.names)+len(c.images) == 0 {
					r.fail(n, f, "matches no container, or all", "expected names or images; what all containers get is default")
				}
				b.note(n, f)
				b.containers = append(b.containers, c)
			})
		},
	})
}

var (
	namespaceForm = regexp.MustCompile(namespacePattern)
	globForm      = regexp.MustCompile(globPattern)
)

func checkNamespace(s string) (msg, hint string) {
	switch {
	case namespaceForm.MatchString(s):
		return "", ""
	case strings.ContainsAny(s, "*?["):
		return diagnostic.Quote(s) + ": namespaces are not matched by pattern", `expected the name of a namespace, or "*" for all that no binding names`
	}
	return diagnostic.Quote(s) + " is not a namespace", `expected the name of a namespace, or "*"`
}

func checkGlob(s string) (msg, hint string) {
	if utf8.RuneCountInString(s) > maxPattern || !globForm.MatchString(s) {
		return diagnostic.Quote(s) + " is not a pattern", "expected a name in which * stands for anything but /, and ** for anything"
	}
	return "", ""
}
