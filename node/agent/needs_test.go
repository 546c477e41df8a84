// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

func TestNeeds(t *testing.T) {
	for name, tt := range map[string]struct {
		configs map[string]string
		want    []string // parts of the error; none: no error
	}{
		"no configuration":          {},
		"the built-in default":      {map[string]string{"config.toml": "version = 1\n"}, nil},
		"profiles that are there":   {map[string]string{"config.toml": "version = 1\ndefault_profile = \"coder\"\nfloor = \"coder\"\n"}, nil},
		"a default that is missing": {map[string]string{"metsuke-runc.toml": "version = 1\ndefault_profile = \"gone\"\n"}, []string{"/etc/metsuke/metsuke-runc.toml: default_profile", `"gone"`}},
		"a floor that is missing":   {map[string]string{"a.toml": "version = 1\n", "b.toml": "version = 1\nfloor = \"gone\"\n"}, []string{"/etc/metsuke/b.toml: floor"}},
		"another directory":         {map[string]string{"a.toml": "version = 1\nfloor = \"gone\"\n[directories]\nprofiles = \"/srv/profiles\"\n"}, nil},
		"no valid configuration":    {map[string]string{"a.toml": "version = 2\nfloor = \"gone\"\n"}, nil},
		"no configuration of ours":  {map[string]string{"a.yaml": "version = 1\nfloor = \"gone\"\n"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.configs {
				path := filepath.Join(root, "etc/metsuke", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			node, err := tree.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = node.Close() }()
			set, err := profile.Parse([]profile.File{{Name: "x", Data: []byte("apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: coder}\nspec: {extends: [baseline]}\n")}})
			if err != nil {
				t.Fatal(err)
			}
			err = Needs(node, "/etc/metsuke/profiles.d")(set)
			if (err == nil) != (len(tt.want) == 0) {
				t.Fatalf("error %v", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %v has no %q", err, part)
				}
			}
		})
	}
}
