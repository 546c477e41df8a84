// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"metsuke.dev/metsuke/internal/diagnostic"
)

// Pod is what a profile is chosen by. All of it was written by whoever wrote the pod.
type Pod struct {
	Namespace   string
	Container   string // name of the container
	Image       string // reference of its image, as the runtime resolved it
	Annotations map[string]string
}

// Defaults is what the node's configuration adds to the bindings.
type Defaults struct {
	Profile string // of namespaces that no binding names; empty: baseline
	Floor   string // that every pod gets on top of its own; empty: none
}

// Reason says what chose a profile.
type Reason string

// The reasons, in order of precedence.
const (
	ByContainer     Reason = "container"       // a rule of the binding, by the container's name or image
	ByAnnotation    Reason = "annotation"      // the pod's annotation, which the binding allows
	ByBinding       Reason = "binding default" // the binding's default
	ByConfiguration Reason = "configuration"   // the node's default: no binding names the namespace
)

// Selection says why a container got its profile.
type Selection struct {
	Reason  Reason
	Binding string // name of the binding; empty if none names the namespace
	Source  Source // of the binding's part; zero if there is none
}

// ErrNotAllowed is wrapped by the error of [Set.Select] for a pod that may not have what it asks, or may have
// nothing at all.
var ErrNotAllowed = errors.New("profile not allowed")

// Select names the profile of a container. The namespace's binding decides, one that names it before one for "*":
// first its rules for containers, then the pod's annotation among what it allows, then its default. A namespace
// without a binding gets the default of d and may choose nothing else.
//
// The refusals wrap [ErrNotAllowed] and say which binding allows what.
func (s *Set) Select(p Pod, d Defaults) (name string, why Selection, err error) {
	if d.Profile == "" {
		d.Profile = Baseline
	}
	asked, annotated := p.Annotations[Annotation]
	b := s.byNS[p.Namespace]
	if b == nil {
		b = s.byNS["*"]
	}
	if b == nil {
		return s.unbound(p, d, asked, annotated)
	}
	allowed := b.allows()
	who := fmt.Sprintf("binding %s", b.source("metadata.name"))
	if annotated && !slices.Contains(allowed, asked) {
		return "", why, refuse(p, asked, who, allowed)
	}
	for i, c := range b.containers {
		if c.matches(p) {
			return c.profile, Selection{ByContainer, b.name, b.source(fmt.Sprintf("spec.containers[%d]", i))}, nil
		}
	}
	switch {
	case annotated:
		return asked, Selection{ByAnnotation, b.name, b.source("spec.allowed." + asked)}, nil
	case len(allowed) == 0:
		return "", why, fmt.Errorf("%w: the %s allows no profile to container %s in %s", ErrNotAllowed, who,
			diagnostic.Quote(p.Container), namespaceWords(p.Namespace))
	case b.fallback == "":
		return "", why, fmt.Errorf("%w: the %s has no default for container %s; set the pod annotation %s to %s", ErrNotAllowed, who,
			diagnostic.Quote(p.Container), Annotation, diagnostic.OneOf(allowed))
	}
	return b.fallback, Selection{ByBinding, b.name, b.source("spec.default")}, nil
}

// Choose returns the profile of a container as [Set.Select] names it, with the node's floor under it.
func (s *Set) Choose(p Pod, d Defaults) (*Resolved, Selection, error) {
	name, why, err := s.Select(p, d)
	if err != nil {
		return nil, why, err
	}
	r, err := s.Resolve(name)
	if err != nil || d.Floor == "" {
		return r, why, err
	}
	floor, err := s.Resolve(d.Floor)
	if err != nil {
		return nil, why, fmt.Errorf("the node's floor: %w", err)
	}
	return r.WithFloor(floor), why, nil
}

func (s *Set) unbound(p Pod, d Defaults, asked string, annotated bool) (string, Selection, error) {
	if annotated && asked != d.Profile {
		return "", Selection{}, refuse(p, asked, "node's configuration (no binding names the namespace)", []string{d.Profile})
	}
	def, ok := s.profiles[d.Profile]
	if !ok {
		return "", Selection{}, fmt.Errorf("default profile of the configuration: %w", s.noProfile(d.Profile))
	}
	if def.passthrough {
		return "", Selection{}, fmt.Errorf("%w: the configuration's default is %s, which only a binding can give", ErrNotAllowed, d.Profile)
	}
	return d.Profile, Selection{Reason: ByConfiguration}, nil
}

// allows returns what a pod's annotation may name.
func (b *binding) allows() []string {
	if b.fallback == "" || slices.Contains(b.allowed, b.fallback) {
		return b.allowed
	}
	return append([]string{b.fallback}, b.allowed...)
}

func refuse(p Pod, asked, who string, allowed []string) error {
	return fmt.Errorf("%w: the annotation %s asks for %s, and in %s the %s allows %s", ErrNotAllowed, Annotation,
		diagnostic.Quote(asked), namespaceWords(p.Namespace), who, oneOfOrNothing(allowed))
}

func oneOfOrNothing(allowed []string) string {
	if len(allowed) == 0 {
		return "none"
	}
	return diagnostic.OneOf(allowed)
}

// matches says that the rule is for the container: its name and its image fit, as far as the rule has any.
func (c containerRule) matches(p Pod) bool {
	fits := func(patterns []string, s string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool { return glob(pattern, s) })
	}
	return fits(c.names, p.Container) && fits(c.images, p.Image)
}

// glob matches all of s: * stands for any run of characters but /, ** for any run, everything else for itself. So
// "*.example.com/app" does not match "evil.example/x.example.com/app". The time is at most len(pattern)·len(s).
func glob(pattern, s string) bool {
	// at[i] says that the pattern up to here matches s[:i].
	at := make([]bool, len(s)+1)
	at[0] = true
	for pattern != "" {
		if rest, ok := strings.CutPrefix(pattern, "*"); ok {
			deep := false
			if rest, ok = strings.CutPrefix(rest, "*"); ok {
				deep = true
			}
			pattern = rest
			for i := range len(s) {
				if at[i] && (deep || s[i] != '/') {
					at[i+1] = true
				}
			}
			continue
		}
		for i := len(s); i > 0; i-- {
			at[i] = at[i-1] && s[i-1] == pattern[0]
		}
		at[0] = false
		pattern = pattern[1:]
	}
	return at[len(s)]
}
