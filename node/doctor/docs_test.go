// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"testing"

	"metsuke.dev/metsuke/internal/goldentest"
)

// The table of checks in the documentation is made from the checks; -update rewrites it.
func TestReferenceIsUpToDate(t *testing.T) {
	table := "| check | what it looks at | what `--fix` mends |\n|---|---|---|\n"
	for _, c := range Checks() {
		table += "| `" + c.Name + "` | " + c.About + " | " + c.Mends + " |\n"
	}
	goldentest.Section(t, "../../docs/doctor.md", "checks", table)
}
