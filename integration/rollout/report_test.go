// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"bytes"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	run := func(nodes int, cpu float64) *Result {
		phase := &Phase{Name: "change", Nodes: nodes, Load: counters{APIServerCPU: cpu}}
		phase.latency("acknowledged", 1, 2)
		return &Result{Nodes: nodes, Phases: []*Phase{phase}}
	}
	for target, want := range map[int][]string{
		15000: {"change API server CPU s 1.00 2.000 5.0 31.0"},
		2000:  {"change API server CPU s 1.00 2.000 5.0 measured"},
	} {
		r := &Report{Kubernetes: "v1", CPUs: 2, Target: target, Results: []*Result{run(1000, 3), run(2000, 5)}}
		r.Fit()
		var out bytes.Buffer
		if err := r.Write(&out); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(out.String()), " ")
		for _, line := range append(want, "1000 change acknowledged 2 1.00 1.00 2.00 2.00") {
			if !strings.Contains(text, line) {
				t.Errorf("target %d: there is no %q in\n%s", target, line, out.String())
			}
		}
	}
}
