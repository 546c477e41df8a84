// SPDX-License-Identifier: Apache-2.0

// Package metrics shows Prometheus what the controller sees and does.
package metrics

import (
	"metsuke.dev/metsuke/cluster/controller"
	"metsuke.dev/metsuke/internal/exposition"
)

// Metrics are those of one replica. Only the elected one has more than its version to tell.
type Metrics struct {
	*exposition.Registry
	elected, documents, nodes, ready *exposition.Gauge
	acknowledged, refusing           *exposition.Gauge
	failures                         *exposition.Counter
	rounds                           *exposition.Histogram
}

// New returns the metrics of a controller.
func New(version string) *Metrics {
	r := exposition.New(version)
	m := &Metrics{Registry: r}
	m.elected = r.Gauge("metsuke_controller_elected", "Whether this replica is the one that works.")
	m.documents = r.Gauge("metsuke_controller_documents", "Profiles and bindings of the cluster, by whether the version that is wanted is in force (`accepted`) or not (`refused`).", "kind", "state")
	m.nodes = r.Gauge("metsuke_controller_nodes", "Nodes of the cluster, by whether their agent reports (`reporting`) or not (`silent`).", "state")
	m.ready = r.Gauge("metsuke_controller_nodes_ready", "Nodes whose doctor passes for the handler.", "handler")
	m.acknowledged = r.Gauge("metsuke_controller_nodes_acknowledged", "Nodes that have exactly what is in force.")
	m.refusing = r.Gauge("metsuke_controller_nodes_refusing", "Nodes that refuse what is in force, and keep an older set.")
	m.rounds = r.Histogram("metsuke_controller_round_seconds", "How long rounds took: everything is looked at, and what follows is written.",
		[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120})
	m.failures = r.Counter("metsuke_controller_write_failures_total", "Writes to the API server that failed, and are tried again.")
	m.elected.Set(0)
	return m
}

// Elected says that this replica works from now on, or no longer does.
func (m *Metrics) Elected(is bool) {
	n := 0
	if is {
		n = 1
	}
	m.elected.Replace(sample(n))
}

// Round takes in what a round saw.
func (m *Metrics) Round(r controller.Round) {
	m.rounds.Observe(r.Took.Seconds())
	m.failures.Add(uint64(r.Failures)) //nolint:gosec // it is a length
	m.nodes.Replace(sample(r.Reporting, "reporting"), sample(r.Nodes-r.Reporting, "silent"))
	m.refusing.Replace(sample(r.Refusing))
	ready := []exposition.Sample{}
	for handler, n := range r.Ready {
		ready = append(ready, sample(n, handler))
	}
	m.ready.Replace(ready...)
	if r.Accepted == nil {
		return // what is in force nobody knows; what was said of it stays
	}
	m.acknowledged.Replace(sample(r.Acknowledged))
	documents := []exposition.Sample{}
	for kind, n := range r.Accepted {
		documents = append(documents, sample(n, kind, "accepted"))
	}
	for kind, n := range r.Refused {
		documents = append(documents, sample(n, kind, "refused"))
	}
	m.documents.Replace(documents...)
}

func sample(n int, labels ...string) exposition.Sample {
	return exposition.Sample{Value: float64(n), Labels: labels}
}
