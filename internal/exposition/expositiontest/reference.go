// SPDX-License-Identifier: Apache-2.0

// Package expositiontest holds the tables of metrics in the docs to the code.
package expositiontest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Reference compares the table between the marks of that name in a file of the docs with what the code says, or with update writes it.
func Reference(t *testing.T, docs, name, table string, update bool) {
	t.Helper()
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table of the %s's metrics", docs, name)
	}
	want := before + begin + table + end + after
	if update {
		if err := os.WriteFile(docs, []byte(want), 0o644); err != nil { //nolint:gosec // docs are no secret
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got) -update writes it\n%s", diff)
	}
}
