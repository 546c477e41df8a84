// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/goldentest"
)

// files makes a file system of "name: content" pairs.
func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

func load(t *testing.T, text string) *Set {
	t.Helper()
	s, err := Load(files("p.yaml", text), "/p")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// profiles writes documents in short: "name: spec".
func profiles(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "---\napiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: %s}\nspec: %s\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

func bindings(pairs ...string) string {
	return strings.ReplaceAll(profiles(pairs...), KindProfile, KindBinding)
}

// The bad documents of testdata/bad and exactly what is said of them.
func TestBadDocuments(t *testing.T) {
	names, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(names) == 0 {
		t.Fatal("no documents")
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Load(files("p.yaml", string(data)), "/p")
			if err == nil {
				t.Fatal("was taken")
			}
			if len(Errors(err)) != strings.Count(err.Error(), "\n")+1 {
				t.Error("a fault is not an *Error, or takes several lines")
			}
			goldentest.Equal(t, strings.TrimSuffix(name, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

func TestLoadBuiltins(t *testing.T) {
	s, err := Load(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"baseline", "passthrough"}, s.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadTakesSeveralFilesAndDocuments(t *testing.T) {
	s, err := Load(files(
		"a.yaml", "# only a comment\n---\n---\n"+profiles("one", "{}", "two", "{extends: [three]}")+"---\n# end\n",
		"sub/b.yml", profiles("three", "{}"),
		"..2024/c.yaml", profiles("one", "{}"), // a mounted ConfigMap's own copy
		".d.yaml.swp", "]", ".e.yaml", "]", "readme.md", "]", "f.yaml~", "]",
		"empty.yaml", "",
	), "/p")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"baseline", "one", "passthrough", "three", "two"}, s.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadFollowsLinksAsAConfigMapHasThem(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/..2024", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/..2024/a.yaml", []byte(profiles("linked", "{}")), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"..data": "..2024", "a.yaml": "..data/a.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(os.DirFS(dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("linked"); err != nil {
		t.Error(err)
	}
}

func TestLoadDoesNotWaitForAPipe(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/a.yaml", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(os.DirFS(dir), dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}

func TestLoadReportsBothFilesOfADuplicate(t *testing.T) {
	_, err := Load(files("a.yaml", profiles("x", "{}"), "b.yaml", profiles("y", "{}", "x", "{}")), "/p")
	want := `/p/b.yaml:9:18: metadata.name: "x" is the name of two profiles; the first is x (/p/a.yaml:4)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestLoadIsBounded(t *testing.T) {
	many := fstest.MapFS{}
	for i := range maxFiles + 1 {
		many[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{}
	}
	entries := fstest.MapFS{}
	for i := range maxEntries + 1 {
		entries[fmt.Sprintf("%d.txt", i)] = &fstest.MapFile{}
	}
	large := fstest.MapFS{}
	for i := range maxTotalSize/maxFileSize + 1 {
		large[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte("#" + strings.Repeat(" ", maxFileSize-1))}
	}
	for name, c := range map[string]struct {
		fsys fstest.MapFS
		want string
	}{
		"file":      {files("a.yaml", strings.Repeat("#", maxFileSize+1)), "larger than"},
		"files":     {many, "more than 256 files"},
		"entries":   {entries, "more than 4096 entries"},
		"total":     {large, "all files together"},
		"documents": {files("a.yaml", manyDocuments()), "one document more"},
		"rules":     {files("a.yaml", profiles("x", "{seccomp: {deny: ["+strings.Repeat("{syscalls: [bpf]},", maxRules+1)+"]}}")), fmt.Sprintf("has %d entries", maxRules+1)},
		"faults":    {files("a.yaml", profiles("x", "{limits: {"+strings.Repeat("cpu: 1, ", 2*maxErrors)+"}}")), "the rest is not shown"},
	} {
		_, err := Load(c.fsys, "/p")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %.300v", name, err)
		}
		if n := len(Errors(err)); n > maxErrors+1 {
			t.Errorf("%s: %d faults reported", name, n)
		}
	}
}

func manyDocuments() string {
	var pairs []string
	for i := range maxDocuments + 1 {
		pairs = append(pairs, fmt.Sprintf("p%d", i), "{}")
	}
	return profiles(pairs...)
}

func TestAbsentDirectory(t *testing.T) {
	if _, err := Load(os.DirFS(t.TempDir()+"/none"), "/none"); err == nil {
		t.Error("was taken")
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml", "builtin/*.yaml"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Load(files("p.yaml", string(data)), "/p")
		if err != nil {
			if len(Errors(err)) == 0 || strings.ContainsAny(err.Error(), "\x00\x1b\r") {
				t.Fatalf("%q", err)
			}
			return
		}
		s.Warnings()
		for _, name := range s.Names() {
			r, err := s.Resolve(name)
			if err != nil {
				t.Fatal(err)
			}
			for i := range r.Layers {
				if l := &r.Layers[i]; l.Name == "" || l.Name == "pod" {
					t.Fatalf("layer %q", l.Name)
				}
			}
			// What is taken can be compiled, but for its size.
			compiles(t, r)
		}
	})
}

func BenchmarkLoadAndResolve(b *testing.B) {
	fsys := os.DirFS("testdata/good")
	b.ReportAllocs()
	for b.Loop() {
		s, err := Load(fsys, "/p")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Resolve("coder"); err != nil {
			b.Fatal(err)
		}
	}
}
