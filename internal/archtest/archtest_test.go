// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A pkg is what go list says about a package; imports are those of non-test files.
type pkg struct {
	ImportPath string
	Name       string
	Imports    []string
	Standard   bool
	Module     *struct{ Main bool }
}

// A graph has every package of the module and what they import, by import path.
type graph map[string]*pkg

func (g graph) ours() []*pkg {
	var out []*pkg
	for _, p := range g {
		if p.Module != nil && p.Module.Main {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return out
}

// TestImports checks the layers and the bans on both architectures that we build for.
func TestImports(t *testing.T) {
	root := moduleRoot(t)
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			g := list(t, root, arch)
			if len(g.ours()) == 0 {
				t.Fatal("go list knows no package of this module")
			}
			for _, problem := range append(checkLayers(g), checkBans(g)...) {
				t.Error(problem)
			}
		})
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

func list(t *testing.T, root, arch string) graph {
	t.Helper()
	// -e: a package that does not compile is another test's business.
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Name,Imports,Standard,Module", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	g := graph{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatal(err)
		}
		g[p.ImportPath] = &p
	}
}

// rel is the path of one of our packages in the module; "." for its root, empty for others.
func rel(importPath string) string {
	if importPath == module {
		return "."
	}
	r, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return r
}

func under(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

// matches reports whether an import path is named by a pattern ("a/b", or "a/b/..." for a subtree).
func matches(importPath, pattern string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(importPath, tree)
	}
	return importPath == pattern
}

// forTests reports whether a package of ours is a helper of tests.
func forTests(path string) bool { return strings.HasSuffix(path, "test") }

func checkLayers(g graph) (problems []string) {
	for _, p := range g.ours() {
		path := rel(p.ImportPath)
		if forTests(path) {
			continue
		}
		at := -1 // the most specific entry
		for i, l := range layers {
			if under(path, l.tree) && (at < 0 || len(l.tree) > len(layers[at].tree)) {
				at = i
			}
		}
		if at < 0 {
			problems = append(problems, fmt.Sprintf("package %s is in no layer\n\tdo:  add its subtree to the table layers in internal/archtest/rules_test.go, with what it may import and why", path))
			continue
		}
		l := layers[at]
		for _, imp := range p.Imports {
			to := rel(imp)
			if forTests(to) {
				problems = append(problems, fmt.Sprintf("package %s imports %s\n\twhy not: that package is for tests, and would be linked into what we ship\n\tdo:      import it from _test.go files only", path, to))
				continue
			}
			allowed := to == "" || under(to, l.tree) || under(to, "internal") ||
				slices.ContainsFunc(l.may, func(tree string) bool { return under(to, tree) })
			if !allowed {
				problems = append(problems, fmt.Sprintf("package %s imports %s\n\twhy not: %s may import only %s: %s\n\tdo:      move the code that needs both to a layer above them",
					path, to, l.tree, orNothing(l.may), l.why))
			}
		}
	}
	return problems
}

func orNothing(trees []string) string {
	return strings.Join(append(slices.Clone(trees), "itself and internal"), ", ")
}

func checkBans(g graph) (problems []string) {
	for _, b := range bans {
		for _, p := range g.ours() {
			path := rel(p.ImportPath)
			in := func(tree string) bool { return under(path, tree) }
			if len(b.in) > 0 && !slices.ContainsFunc(b.in, in) || slices.ContainsFunc(b.except, in) || b.notHelpers && forTests(path) {
				continue
			}
			for _, chain := range banned(g, p, b) {
				problems = append(problems, fmt.Sprintf("package %s imports %s\n\twhy not: %s\n\tdo:      %s", path, strings.Join(chain, " -> "), b.why, b.do))
			}
		}
	}
	return problems
}

// banned returns the shortest way from p to each banned import. It stops at the first banned package of a way.
func banned(g graph, p *pkg, b ban) (chains [][]string) {
	is := func(importPath string) bool {
		return slices.ContainsFunc(b.imports, func(pattern string) bool { return matches(importPath, pattern) })
	}
	seen := map[string]bool{p.ImportPath: true}
	queue := [][]string{nil}
	for ; len(queue) > 0; queue = queue[1:] {
		at := p
		if way := queue[0]; len(way) > 0 {
			at = g[way[len(way)-1]]
		}
		if at == nil || at.Standard {
			continue // what the standard library imports is its own affair
		}
		for _, imp := range at.Imports {
			if seen[imp] {
				continue
			}
			seen[imp] = true
			way := append(slices.Clone(queue[0]), imp)
			switch {
			case is(imp):
				chains = append(chains, way)
			case b.transitive:
				queue = append(queue, way)
			}
		}
	}
	return chains
}
