// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each promise of the threat model names the tests that hold it, and they exist.
func TestPromisesAreHeld(t *testing.T) {
	const file = "docs/threat-model.md"
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- promises:begin -->")
	table, _, ok := strings.Cut(table, "<!-- promises:end -->")
	if !ok {
		t.Fatalf("%s has no table of promises", file)
	}
	have := map[string]bool{} // package.Test
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			have[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([\\w-]+\\.(?:Test|Fuzz)\\w+)`")
	rows := 0
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "| ") || strings.HasPrefix(row, "| #") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(row, -1)
		if len(tests) == 0 {
			t.Errorf("%s: a promise that no test holds: %s", file, row)
		}
		for _, test := range tests {
			if !have[test[1]] {
				t.Errorf("%s: there is no test %s: %s", file, test[1], row)
			}
		}
	}
	if rows < 20 {
		t.Errorf("%s: %d promises: has the table lost its form?", file, rows)
	}
}
