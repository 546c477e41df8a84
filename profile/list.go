// SPDX-License-Identifier: Apache-2.0

package profile

import "slices"

// Info is what a list of profiles shows of one.
type Info struct {
	Name        string
	Description string
	BuiltIn     bool
	Extends     []string
	Namespaces  []string // whose binding gives or allows it, sorted; "*": all that no binding names
	Bindings    []string // names of the bindings that give or allow it, in the order of the files
	Source      Source
}

// Profiles returns every profile, sorted by name.
func (s *Set) Profiles() []Info {
	var out []Info
	for _, name := range s.Names() {
		p := s.profiles[name]
		i := Info{Name: name, Description: p.description, BuiltIn: p.builtin, Extends: slices.Clone(p.extends), Source: p.source("metadata.name")}
		for _, b := range s.bindings {
			if b.names(name) {
				i.Bindings = append(i.Bindings, b.name)
				i.Namespaces = append(i.Namespaces, b.namespaces...)
			}
		}
		slices.Sort(i.Namespaces)
		out = append(out, i)
	}
	return out
}

// names says that the binding refers to the profile.
func (b *binding) names(profile string) bool {
	return slices.Contains(b.allows(), profile) || slices.ContainsFunc(b.containers, func(c containerRule) bool { return c.profile == profile })
}

// BindingInfo is what a list of bindings shows of one.
type BindingInfo struct {
	Name       string
	Namespaces []string
	Default    string
	Allowed    []string // what an annotation may name, the default included
	Containers int      // rules by container
	Source     Source
}

// Bindings returns every binding, in the order of the files.
func (s *Set) Bindings() []BindingInfo {
	var out []BindingInfo
	for _, b := range s.bindings {
		out = append(out, BindingInfo{b.name, slices.Clone(b.namespaces), b.fallback, slices.Clone(b.allows()), len(b.containers), b.source("metadata.name")})
	}
	return out
}
