// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"fmt"
	"strings"
	"testing"

	"metsuke.dev/metsuke/internal/goldentest"
)

// TestReference holds the tables of the documentation to the code; -update writes them.
func TestReference(t *testing.T) {
	goldentest.Section(t, "../../docs/metrics.md", "shipper", NewMetrics("v1").Table())
	var reasons strings.Builder
	reasons.WriteString("| reason | meaning |\n|---|---|\n")
	for _, r := range Reasons() {
		fmt.Fprintf(&reasons, "| `%s` | %s |\n", r.Name, r.Doc)
	}
	goldentest.Section(t, "../../docs/shipping.md", "reasons", reasons.String())
}
