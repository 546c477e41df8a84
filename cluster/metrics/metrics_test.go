// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"metsuke.dev/metsuke/cluster/controller"
	"metsuke.dev/metsuke/internal/goldentest"
)

func TestController(t *testing.T) {
	m := New("v1")
	m.Elected(true)
	m.Round(controller.Round{
		Took: 20 * time.Millisecond, Failures: 2, Accepted: map[string]int{"AgentProfile": 3}, Refused: map[string]int{"AgentProfile": 1, "ProfileBinding": 1},
		Nodes: 5, Reporting: 4, Acknowledged: 3, Refusing: 1, Ready: map[string]int{"metsuke-runc": 4},
	})
	m.Round(controller.Round{Took: time.Second, Nodes: 6, Reporting: 4, Ready: map[string]int{"metsuke-kata": 1}}) // nobody could decide
	want := `
# HELP metsuke_controller_documents Profiles and bindings of the cluster, by whether the version that is wanted is in force (` + "`accepted`) or not (`refused`" + `).
# TYPE metsuke_controller_documents gauge
metsuke_controller_documents{kind="AgentProfile",state="accepted"} 3
metsuke_controller_documents{kind="AgentProfile",state="refused"} 1
metsuke_controller_documents{kind="ProfileBinding",state="refused"} 1
# HELP metsuke_controller_elected Whether this replica is the one that works.
# TYPE metsuke_controller_elected gauge
metsuke_controller_elected 1
# HELP metsuke_controller_nodes Nodes of the cluster, by whether their agent reports (` + "`reporting`) or not (`silent`" + `).
# TYPE metsuke_controller_nodes gauge
metsuke_controller_nodes{state="reporting"} 4
metsuke_controller_nodes{state="silent"} 2
# HELP metsuke_controller_nodes_acknowledged Nodes that have exactly what is in force.
# TYPE metsuke_controller_nodes_acknowledged gauge
metsuke_controller_nodes_acknowledged 3
# HELP metsuke_controller_nodes_ready Nodes whose doctor passes for the handler.
# TYPE metsuke_controller_nodes_ready gauge
metsuke_controller_nodes_ready{handler="metsuke-kata"} 1
# HELP metsuke_controller_nodes_refusing Nodes that refuse what is in force, and keep an older set.
# TYPE metsuke_controller_nodes_refusing gauge
metsuke_controller_nodes_refusing 0
# HELP metsuke_controller_write_failures_total Writes to the API server that failed, and are tried again.
# TYPE metsuke_controller_write_failures_total counter
metsuke_controller_write_failures_total 2
`
	if err := testutil.GatherAndCompare(m, strings.NewReader(want), "metsuke_controller_documents", "metsuke_controller_elected", "metsuke_controller_nodes",
		"metsuke_controller_nodes_acknowledged", "metsuke_controller_nodes_ready", "metsuke_controller_nodes_refusing", "metsuke_controller_write_failures_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(m); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	m.Elected(false)
	if n := testutil.ToFloat64(m.elected); n != 0 {
		t.Error(n)
	}
}

const docs = "../../docs/metrics.md"

// TestReference holds the table of the reference to the code; -update writes it.
func TestReference(t *testing.T) {
	goldentest.Section(t, docs, "controller", New("v1").Table())
}
