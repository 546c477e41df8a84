// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// Round is what one round saw, and what came of it.
type Round struct {
	Took     time.Duration
	Failures int // writes that failed

	Accepted map[string]int // documents, by kind, of which the version that is wanted is in force; nil: nobody could decide
	Refused  map[string]int // and those of which it is not

	Nodes        int            // of the cluster
	Reporting    int            // of them, those whose agents do
	Acknowledged int            // of those, the ones that have exactly what is in force
	Refusing     int            // of those, the ones that keep an older set
	Ready        map[string]int // nodes, by handler whose doctor passes
}

func round(s *snapshot, reports map[string]*v1alpha1.AgentNode, p *plan, took time.Duration) Round {
	r := Round{Took: took, Failures: p.failures, Nodes: len(s.nodes), Ready: map[string]int{}}
	if p.inForce != nil {
		r.Accepted, r.Refused = map[string]int{}, map[string]int{}
	}
	for _, d := range s.documents {
		switch {
		case p.inForce == nil:
		case p.refused[key(d)]:
			r.Refused[d.Kind]++
		default:
			r.Accepted[d.Kind]++
		}
	}
	for _, node := range s.nodes {
		report := reports[node.Name]
		if report == nil {
			continue
		}
		r.Reporting++
		if p.inForce != nil && report.Status.Profiles.Digest == p.digest {
			r.Acknowledged++
		}
		if report.Status.Profiles.Refused != "" {
			r.Refusing++
		}
		for _, handler := range ready(report) {
			r.Ready[handler]++
		}
	}
	return r
}
