// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

// maxRules bounds how many rules are known, over all versions of profiles that there were.
const maxRules = 10_000

// launcherRule decides in guest/supervisor, which has no profile.
const launcherRule = "metsuke/launcher"

// podOrigin is the origin of decisions of the pod's own seccomp profile.
const podOrigin = "pod"

// names are those that profiles have, or had since the agent began: a container may run under a version that is gone.
type names struct {
	asOf  *time.Time                    // when what was learnt last had changed; nil: nothing was learnt
	rules map[string]map[[2]string]bool // by profile: origin and id; true: it denies or kills
	count int
}

// learn adds the names of the built-in profiles and of those in the directories. A set that is not valid teaches nothing.
func (n *names) learn(root string, dirs []string) {
	for _, dir := range dirs {
		var files fs.FS
		if _, err := os.Stat(filepath.Join(root, dir)); err == nil {
			files = os.DirFS(filepath.Join(root, dir))
		}
		set, err := profile.Load(files, dir)
		if err != nil {
			continue
		}
		for _, name := range set.Names() {
			if resolved, err := set.Resolve(name); err == nil {
				n.add(resolved)
			}
		}
	}
}

func (n *names) add(r *profile.Resolved) {
	if r.Passthrough {
		return
	}
	if n.rules == nil {
		n.rules = map[string]map[[2]string]bool{}
	}
	if n.rules[r.Name] == nil {
		n.rules[r.Name] = map[[2]string]bool{}
	}
	put := func(origin, id string, denies bool) {
		key := [2]string{origin, id}
		if _, ok := n.rules[r.Name][key]; !ok && n.count < maxRules {
			n.count++
			n.rules[r.Name][key] = denies
		}
	}
	for _, l := range r.Policy(seccomp.NativeArch(), nil).Layers {
		for _, rule := range slices.Concat(l.Deny, l.Kill) {
			put(l.Name, rule.ID, true)
		}
		for _, id := range append(profile.ReservedRuleIDs(), "") {
			put(l.Name, id, false)
		}
	}
}

// each calls back with the rules of a profile that deny or kill.
func (n *names) each(profile string, do func(origin, rule string)) {
	for key, denies := range n.rules[profile] {
		if denies {
			do(key[0], key[1])
		}
	}
}

// rule returns how a rule is shown: as it is if the profile has it.
func (n *names) rule(profile, origin, id string) (string, string) {
	if origin == podOrigin {
		return podOrigin, "" // its ids are places in the pod's own document
	}
	if _, ok := n.rules[profile][[2]string{origin, id}]; ok || origin == "" && id == launcherRule {
		return origin, id
	}
	return exposition.Other, exposition.Other
}

// term returns how a word of a vocabulary is shown.
func term(terms []audit.Term, name string) string {
	if slices.ContainsFunc(terms, func(t audit.Term) bool { return t.Name == name }) {
		return name
	}
	return exposition.Other
}

// resource returns how a resource is shown; what is behind a dot says of which size or device.
func resource(name string) string {
	if kind, _, _ := strings.Cut(name, "."); slices.ContainsFunc(cgroups.Resources(), func(r cgroups.ResourceDoc) bool { return r.Name == kind }) {
		return kind
	}
	return exposition.Other
}

// class returns how an audit class is shown.
func class(name string) string {
	if name == "" || slices.ContainsFunc(seccomp.Classes(), func(c seccomp.Class) bool { return c.Name == name }) {
		return name
	}
	return exposition.Other
}
