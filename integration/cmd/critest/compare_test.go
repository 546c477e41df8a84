// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestCompare(t *testing.T) {
	digest := expectation{Run: "delegate", Spec: "pulls by digest", Outcome: "failed", Reason: "made on the spot"}
	mount := expectation{Run: "baseline", Spec: "mounts", Outcome: "failed", Reason: "no-mount"}
	old := expectation{Run: "baseline", Spec: "mounts", Outcome: "failed", Only: []string{"1.7"}, Reason: "no-mount"}
	alone := report{"CRI runs": {state: "passed"}, "CRI mounts": {state: "passed"}, "CRI pulls by digest": {state: "failed"}}
	denied := report{"CRI runs": {state: "passed"}, "CRI mounts": {state: "failed"}, "CRI pulls by digest": {state: "failed"}}
	fewer := report{"CRI runs": {state: "passed"}, "CRI pulls by digest": {state: "failed"}}
	for name, test := range map[string]struct {
		baseline report
		expected []expectation
		partial  bool
		fails    bool
	}{
		"equal":                              {alone, []expectation{digest}, false, false},
		"failure of the delegate alone":      {alone, nil, false, true},
		"difference":                         {denied, []expectation{digest}, false, true},
		"difference explained":               {denied, []expectation{digest, mount}, false, false},
		"difference explained elsewhere":     {denied, []expectation{digest, old}, false, true},
		"explanation of nothing":             {alone, []expectation{digest, mount}, false, true},
		"explanation of nothing, part only":  {alone, []expectation{digest, mount}, true, false},
		"explanation of nothing, other only": {alone, []expectation{digest, old}, false, false},
		"spec absent":                        {fewer, []expectation{digest}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			reports := map[string]report{"delegate": alone, "baseline": test.baseline}
			err := compare(io.Discard, []run{{"delegate", "runc"}, {"baseline", "metsuke"}}, reports, test.expected, "2.4", test.partial)
			if (err != nil) != test.fails {
				t.Errorf("error %v, want one: %t", err, test.fails)
			}
		})
	}
}

// The file in the repository must be readable, and each entry whole.
func TestExpectations(t *testing.T) {
	if _, err := readExpectations(filepath.Join("..", "..", "critest", "expected.yaml")); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "expected.yaml")
	if err := os.WriteFile(path, []byte("- {run: baseline, spec: x, outcome: failed}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readExpectations(path); err == nil {
		t.Error("an entry without a reason is accepted")
	}
}
