// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

func document(kind, name, spec string) profile.File {
	return profile.File{Name: kind + "/" + name, Data: []byte(`{"apiVersion":"` + profile.APIVersion + `","kind":"` + kind +
		`","metadata":{"name":"` + name + `"},"spec":` + spec + `}`)}
}

var (
	coder = document(profile.KindProfile, "coder", `{"extends":["baseline"],"description":"yes: # no","limits":{"cpu":"2","pids":100}}`)
	bound = document(profile.KindBinding, "team-a", `{"namespaces":["team-a"],"default":"coder","allowed":["coder","baseline"]}`)
)

const want = `# Written by metsuke node agent from the objects of the cluster. What is changed here is lost.
---
"apiVersion": "metsuke.dev/v1alpha1"
"kind": "AgentProfile"
"metadata":
    "name": "coder"
"spec":
    "extends":
        - "baseline"
    "description": "yes: # no"
    "limits":
        "cpu": "2"
        "pids": 100
---
"apiVersion": "metsuke.dev/v1alpha1"
"kind": "ProfileBinding"
"metadata":
    "name": "team-a"
"spec":
    "namespaces":
        - "team-a"
    "default": "coder"
    "allowed":
        - "coder"
        - "baseline"
`

// newMirror returns a mirror into a directory that is not there yet, and where that is for us.
func newMirror(t *testing.T) (m *Mirror, dir string) {
	t.Helper()
	root := t.TempDir()
	node, err := tree.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return &Mirror{Tree: node, Dir: "/profiles.d"}, filepath.Join(root, "profiles.d")
}

func read(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func put(t *testing.T, m *Mirror, changes bool, documents ...profile.File) {
	t.Helper()
	if changed, err := m.Put(documents); err != nil || changed != changes {
		t.Fatalf("changed: %v, want %v; error %v", changed, changes, err)
	}
}

func TestPut(t *testing.T) {
	m, dir := newMirror(t)
	put(t, m, true, coder, bound)
	if got := read(t, dir); got != want {
		t.Errorf("the file is\n%s", got)
	}
	put(t, m, false, coder, bound)
	set, err := profile.Load(os.DirFS(dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	if name, _, err := set.Select(profile.Pod{Namespace: "team-a"}, profile.Defaults{}); name != "coder" || err != nil {
		t.Errorf("team-a gets %q: %v", name, err)
	}
	put(t, m, true, coder)
	put(t, m, true)
	if entries, err := os.ReadDir(dir); len(entries) != 1 || err != nil {
		t.Errorf("the directory has %v: %v", entries, err)
	}
}

// What the node would refuse does not come into force, and what is there stays.
func TestRefused(t *testing.T) {
	refusal := errors.New("the floor is gone")
	for name, tt := range map[string]struct {
		own       string // a file of the node's
		check     error
		documents []profile.File
		want      string
	}{
		"a fault":                 {documents: []profile.File{document(profile.KindProfile, "x", `{"limits":{"pids":-1}}`)}, want: "cluster.yaml:9:17: spec.limits.pids"},
		"no parent":               {documents: []profile.File{document(profile.KindProfile, "x", `{"extends":["nobody"]}`)}, want: `"nobody"`},
		"the node's own name":     {own: string(coder.Data), documents: []profile.File{coder}, want: "is the name of two profiles"},
		"a fault of the node's":   {own: "kind: AgentProfile", documents: []profile.File{coder}, want: "own.yaml"},
		"what the caller refuses": {check: refusal, documents: []profile.File{coder}, want: "the floor is gone"},
		"no document":             {documents: []profile.File{{Name: "x", Data: []byte("{")}}, want: "x: "},
		"what could not be made":  {documents: []profile.File{{Name: "x", Err: refusal}}, want: "x: the floor is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			m, dir := newMirror(t)
			put(t, m, true, bound, document(profile.KindProfile, "coder", `{}`))
			before := read(t, dir)
			if tt.own != "" {
				if err := os.WriteFile(filepath.Join(dir, "own.yaml"), []byte(tt.own), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.check != nil {
				m.Check = func(*profile.Set) error { return tt.check }
			}
			changed, err := m.Put(tt.documents)
			if changed || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("changed: %v, error %v, want one with %q", changed, err, tt.want)
			}
			if read(t, dir) != before {
				t.Error("the file has changed")
			}
		})
	}
}

// Check sees the node's own documents together with the cluster's.
func TestCheckSeesAll(t *testing.T) {
	m, dir := newMirror(t)
	m.Check = func(s *profile.Set) error { _, err := s.Resolve("own"); return err }
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	own := `{"apiVersion": "metsuke.dev/v1alpha1", "kind": "AgentProfile", "metadata": {"name": "own"}, "spec": {"extends": ["coder"]}}`
	if err := os.WriteFile(filepath.Join(dir, "own.yml"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, m, true, coder)
	if _, err := m.Put(nil); err == nil || !strings.Contains(err.Error(), `there is no profile "coder"`) {
		t.Errorf("the node's own profile lost its parent: %v", err)
	}
}

// What the agent wrote goes, and nothing else.
func TestRemove(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string // beside what Put writes; cluster.yaml in its place
		left  []string
	}{
		"ours alone":        {nil, nil},
		"beside the node's": {map[string]string{"own.yaml": ""}, []string{"own.yaml"}},
		"somebody else's":   {map[string]string{FileName: "# mine\n"}, []string{FileName}},
	} {
		t.Run(name, func(t *testing.T) {
			m, dir := newMirror(t)
			if err := m.Remove(); err != nil {
				t.Errorf("before there is anything: %v", err)
			}
			if _, err := m.Put([]profile.File{coder}); err != nil {
				t.Fatal(err)
			}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Remove(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if (err == nil) != (len(c.left) > 0) {
				t.Errorf("the directory: %v", err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if !slices.Equal(left, c.left) {
				t.Errorf("left are %q, want %q", left, c.left)
			}
		})
	}
}
