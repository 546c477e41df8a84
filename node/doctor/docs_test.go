// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"strings"
	"testing"
)

// The table of checks in the documentation is made from the checks; -update rewrites it.
func TestReferenceIsUpToDate(t *testing.T) {
	const file, begin, end = "../../docs/doctor.md", "<!-- checks:begin -->\n", "<!-- checks:end -->"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers", file)
	}
	table := "| check | what it looks at | what `--fix` mends |\n|---|---|---|\n"
	for _, c := range Checks() {
		table += "| `" + c.Name + "` | " + c.About + " | " + c.Mends + " |\n"
	}
	golden(t, file, before+begin+table+end+after)
}
