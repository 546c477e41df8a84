// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"path"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

// Needs returns what refuses a set that lacks a profile which the node's configurations name: their default profile, or their floor.
// Every pod of such a handler would be refused. Configurations are read anew each time; those of other profile directories than dir do
// not count, nor do those that cannot be read, which the doctor tells of.
func Needs(t *tree.Tree, dir string) func(*profile.Set) error {
	return func(set *profile.Set) error {
		files, err := t.Glob("/etc/metsuke/*.toml")
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range files {
			data, err := t.ReadFile(name)
			if err != nil {
				continue
			}
			c, err := config.Parse(name, data)
			if err != nil || path.Clean(c.Directories.Profiles) != path.Clean(dir) {
				continue
			}
			for field, profile := range map[string]string{"default_profile": c.DefaultProfile, "floor": c.Floor} {
				if profile == "" {
					continue
				}
				if _, err := set.Resolve(profile); err != nil {
					errs = append(errs, fmt.Errorf("%s: %s: %w", name, field, err))
				}
			}
		}
		return errors.Join(errs...)
	}
}
