// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

func TestCompare(t *testing.T) {
	digest := expectation{Run: "delegate", Spec: "pulls by digest", Outcome: "failed", Reason: "made on the spot"}
	mount := expectation{Run: "baseline", Spec: "mounts", Outcome: "failed", Reason: "no-mount"}
	old, guest, host, kata, node := mount, mount, mount, mount, mount
	old.Containerd, guest.Placement, host.Placement, kata.Delegate, node.Node = stand.V1, stand.Guest, stand.Host, "kata", "kind"
	alone := report{"CRI runs": {state: "passed"}, "CRI mounts": {state: "passed"}, "CRI pulls by digest": {state: "failed"}}
	denied := report{"CRI runs": {state: "passed"}, "CRI mounts": {state: "failed"}, "CRI pulls by digest": {state: "failed"}}
	fewer := report{"CRI runs": {state: "passed"}, "CRI pulls by digest": {state: "failed"}}
	for name, test := range map[string]struct {
		host, guest report
		expected    []expectation
		partial     bool
		fails       bool
	}{
		"equal":                                  {alone, alone, []expectation{digest}, false, false},
		"failure of the delegate alone":          {alone, alone, nil, false, true},
		"difference":                             {denied, alone, []expectation{digest}, false, true},
		"difference in both, explained":          {denied, denied, []expectation{digest, mount}, false, false},
		"difference in one, explained for both":  {denied, alone, []expectation{digest, mount}, false, true},
		"difference in one, explained for it":    {denied, alone, []expectation{digest, host}, false, false},
		"difference in one, explained for other": {denied, alone, []expectation{digest, guest}, false, true},
		"difference in both, explained in one":   {denied, denied, []expectation{digest, guest}, false, true},
		"difference in both, explained in each":  {denied, denied, []expectation{digest, guest, host}, false, false},
		"difference explained on another":        {denied, denied, []expectation{digest, old, kata, node}, false, true},
		"explanation of nothing":                 {alone, alone, []expectation{digest, mount}, false, true},
		"explanation of nothing, part only":      {alone, alone, []expectation{digest, mount}, true, false},
		"explanation of nothing, other only":     {alone, alone, []expectation{digest, old, kata, node}, false, false},
		"spec absent":                            {fewer, fewer, []expectation{digest}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			runs := []run{{profile: "delegate"}, {"baseline", "metsuke", stand.Host}, {"baseline", "metsuke", stand.Guest}}
			reports := map[run]report{runs[0]: alone, runs[1]: test.host, runs[2]: test.guest}
			o := options{Setup: &stand.Setup{Version: stand.V2, Delegate: stand.Runc}, node: "stand"}
			if err := compare(io.Discard, o, runs, reports, test.expected, test.partial); (err != nil) != test.fails {
				t.Errorf("error %v, want one: %t", err, test.fails)
			}
		})
	}
}

// What holds with the stand's own guests explains nothing on Kata as it is installed, and is not missed there.
func TestExpectationsOfTheStand(t *testing.T) {
	copied := expectation{Run: "delegate", Stand: true, Spec: "propagates", Outcome: "failed", Reason: "the volume is a copy"}
	passed, failed := report{"CRI propagates": {state: "passed"}}, report{"CRI propagates": {state: "failed"}}
	runs := []run{{profile: "delegate"}}
	for name, test := range map[string]struct {
		installed string
		report    report
		fails     bool
	}{
		"the stand's, explained":         {"", failed, false},
		"the stand's, does not happen":   {"", passed, true},
		"installed, not explained":       {"/opt/kata", failed, true},
		"installed, and does not happen": {"/opt/kata", passed, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("METSUKE_KATA", test.installed)
			t.Setenv("METSUKE_KATA_AGENT", "")
			o := options{Setup: &stand.Setup{Version: stand.V2, Delegate: stand.Kata}}
			if err := compare(io.Discard, o, runs, map[run]report{runs[0]: test.report}, []expectation{copied}, false); (err != nil) != test.fails {
				t.Errorf("error %v, want one: %t", err, test.fails)
			}
		})
	}
}

// Runs are what a setup asks for, and have names of their own.
func TestRuns(t *testing.T) {
	for _, test := range []struct {
		setup stand.Setup
		want  string
	}{
		{stand.Setup{Delegate: stand.Runc}, "delegate passthrough-host baseline-host passthrough-guest baseline-guest"},
		{stand.Setup{Delegate: stand.Runc, Placement: stand.Guest}, "delegate passthrough-guest baseline-guest"},
		{stand.Setup{Delegate: stand.Kata}, "delegate passthrough-guest baseline-guest"},
	} {
		var names []string
		for _, r := range runsOn(&test.setup) {
			names = append(names, r.String())
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%s %q: %s, want %s", test.setup.Delegate.Name, test.setup.Placement, got, test.want)
		}
	}
}

func TestProgress(t *testing.T) {
	for log, want := range map[string]string{
		"":                          "starts",
		"Will run 3 of 131 specs\n": "0/131",
		"Will run 3 of 131 specs\n\nSS•\n•SSteps\nS":                                                               "4/131",
		"Will run 3 of 131 specs\nSS•\n-----\n• [FAILED] [1.2 seconds]\nName\n  STEP: a\nSummarizing 1 Failure:\n": "4/131",
	} {
		if got := progress([]byte(log)); got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
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
