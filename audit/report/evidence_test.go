// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"testing"
	"time"

	"metsuke.dev/metsuke/audit/verify"
)

// A fault counts whether or not there is room for the stream that it is of.
func TestFaultOfFurtherStream(t *testing.T) {
	for n, want := range map[int]string{1: "FAULT", maxContainers: "FAULT", maxContainers + 3: "FAULT"} {
		var r Report
		for i := range n {
			s := &verify.Stream{Path: fmt.Sprintf("/audit/ns_pod_%d/agent", i)}
			if i == n-1 {
				s.Findings = []verify.Finding{{Severity: verify.Fault}}
			}
			r.Verified(s)
		}
		if e := r.evidence(About{At: time.Unix(1, 0)}, newScale(nil, nil)); e.Word != want {
			t.Errorf("%d streams, the last one with a fault: %s", n, e.Word)
		}
	}
}
