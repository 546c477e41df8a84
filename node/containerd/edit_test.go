// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"slices"
	"strings"
	"testing"
)

// Whatever a main file looks like, what is put in comes out again, and nothing else.
func FuzzEdits(f *testing.F) {
	for _, l := range layouts {
		f.Add(l.files[DefaultConfig])
	}
	for _, text := range []string{
		"imports = [\n# ']'\n'a', \"b]\\\"\" , ] # x\nversion = 3", "\"imports\"=['''a''']", "version = 3\r\n[a]\r\nimports = 1\r\n", "a.imports = ['x']\nimports = []",
		"x = '''\nversion = 3\nimports = ['y']\n'''\nversion = 2", " version = 2\n  imports = [ ]", "'version' = 2",
	} {
		f.Add(text)
	}
	c := New(nil, "/usr/bin/containerd", DefaultConfig)
	pattern := c.ImportPattern()
	f.Fuzz(func(t *testing.T, text string) {
		m, err := c.parse(text)
		if err != nil || strings.Contains(text, "metsuke") {
			return // no main file, or one that has been edited
		}
		imported := m.addImport(pattern)
		after, err := c.parse(imported)
		if err != nil {
			t.Fatalf("does not parse: %v\n%s", err, imported)
		}
		if !slices.Equal(after.imports, append([]string{pattern}, m.imports...)) || after.version != m.version {
			t.Fatalf("imports %q of version %d\n%s", after.imports, after.version, imported)
		}
		if back := c.stripImport(imported, pattern); back != text {
			t.Fatalf("%q came back as %q", text, back)
		}
		checked, err := c.parse(after.withImports([]string{"/x"}))
		if err != nil || !slices.Equal(checked.imports, []string{"/x"}) {
			t.Fatalf("other imports: %v, %v", checked, err)
		}
		const tables = "[plugins.x]\n  a = \"b\"\n"
		rest, taken, err := stripBlock(addBlock(text, tables))
		if err != nil || rest != text || taken != tables {
			t.Fatalf("block: %q, %q, %v", rest, taken, err)
		}
	})
}
