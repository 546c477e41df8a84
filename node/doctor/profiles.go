// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

func checkProfiles(_ context.Context, s *survey) []Finding {
	return s.each(func(u *setup) []Finding { return about(u.config.Directories.Profiles, judgeProfiles(s, u)) })
}

func judgeProfiles(s *survey, u *setup) (found []Finding) {
	const breaks = "no container of its handlers starts"
	set, err := s.profiles(u)
	if err != nil {
		for _, f := range profile.Errors(err) {
			found = append(found, faultOf(f, breaks))
		}
		if len(found) == 0 {
			found = append(found, fail(err.Error(), breaks, "create the directory, or correct directories.profiles").at(u.path, 0))
		}
		return found
	}
	for _, named := range []struct{ field, profile string }{{"default_profile", u.config.DefaultProfile}, {"floor", u.config.Floor}} {
		if _, err := set.Resolve(named.profile); named.profile != "" && err != nil {
			found = append(found, fail(fmt.Sprintf("%s: %v", named.field, err), "containers that would have it do not start",
				"write the profile, or correct "+named.field).at(u.path, 0))
		}
	}
	host, _ := cgroups.Detect(s.Tree.Dir()) // what is wrong with it, the check of cgroups says
	own := 0
	for _, p := range set.Profiles() {
		if !p.BuiltIn {
			own++
		}
		if err := enforceable(set, p.Name, u, host); err != nil {
			found = append(found, fail(fmt.Sprintf("profile %s: %v", p.Name, err), "containers with this profile do not start",
				"correct the profile, or list the limit under bestEffort").at(p.Source.File, p.Source.Line))
		}
	}
	for _, w := range set.Warnings() {
		f := faultOf(w, "a part of the profile has no effect")
		f.Severity = Warn
		found = append(found, f)
	}
	if len(found) == 0 {
		return []Finding{ok("your own profiles: %d, bindings: %d; default: %s", own, len(set.Bindings()), u.config.DefaultProfile)}
	}
	return found
}

// enforceable says why a profile cannot be put in force on this node.
func enforceable(set *profile.Set, name string, u *setup, host *cgroups.Host) error {
	r, err := set.Resolve(name)
	if err != nil {
		return err
	}
	if r.Passthrough {
		return nil
	}
	if _, err := seccomp.Compile(r.Policy(seccomp.NativeArch(), nil)); err != nil {
		return err
	}
	if t := u.traits(); t.Sandboxed {
		_, _, err = cgroups.ResolveForGuest(r.Limits, t.LimitsForeign)
	} else if host != nil {
		_, _, err = host.Resolve(r.Limits)
	}
	return err
}
