// SPDX-License-Identifier: Apache-2.0

package verify

import "testing"

// However many findings of less weight come first, a fault is found.
func TestFaultBehindMany(t *testing.T) {
	var f findings
	for range 2 * maxFindings {
		f.add(Finding{Severity: Note})
	}
	for range 2 {
		f.add(Finding{Severity: Unjudged})
		f.add(Finding{Severity: Fault})
	}
	if verdict(f.list) != Fault || len(f.list) != maxFindings || f.left != maxFindings+4 {
		t.Errorf("%s, of %d findings and %d more", verdict(f.list), len(f.list), f.left)
	}
}
