// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// Freshness is how long an AgentNode counts after its heartbeat: three times the agents' interval.
const Freshness = 15 * time.Minute

// maxHandlers bounds how many handlers of a node are looked at.
const maxHandlers = 32

// isFresh tells whether an AgentNode's agent reports. A heartbeat from the future is as old as one from as far in the past: the clock of
// a node must not keep it ready for ever.
func isFresh(n *v1alpha1.AgentNode, now time.Time) bool {
	return now.Sub(n.Status.Heartbeat.Time).Abs() <= Freshness
}

// fresh returns the AgentNodes whose agents report, by name.
func fresh(s *snapshot) map[string]*v1alpha1.AgentNode {
	out := make(map[string]*v1alpha1.AgentNode, len(s.agentNodes))
	for _, n := range s.agentNodes {
		if isFresh(n, s.now) {
			out[n.Name] = n
		}
	}
	return out
}

// count tells how far each document in force has come.
func (c *Controller) count(reports map[string]*v1alpha1.AgentNode, inForce marks) map[acceptance.Key]v1alpha1.NodeCounts {
	type told struct {
		digest  string
		refused bool
	}
	groups := map[told]int{} // few, where nodes are many
	for _, n := range reports {
		groups[told{n.Status.Profiles.Digest, n.Status.Profiles.Refused != ""}]++
	}
	counts := map[acceptance.Key]v1alpha1.NodeCounts{}
	for key, mark := range inForce {
		n := v1alpha1.NodeCounts{Total: len(reports)}
		for group, count := range groups {
			switch {
			case c.sets.byDigest[group.digest][key] == mark:
				n.Acknowledged += count
			case group.refused:
				n.Refused += count
			}
		}
		counts[key] = n
	}
	return counts
}

// nodeLabels is a change of a node's labels; nil takes a label away.
type nodeLabels struct {
	node   string
	uid    types.UID // so that a node of the same name that came since is left alone
	labels map[string]*string
}

// label plans the labels of nodes, and what is to go with nodes that are gone.
func label(s *snapshot, reports map[string]*v1alpha1.AgentNode, p *plan) {
	there := make(map[string]bool, len(s.nodes))
	for _, node := range s.nodes {
		there[node.Name] = true
		var want []string
		if report := reports[node.Name]; report != nil {
			want = ready(report)
			p.look(report.Status.Heartbeat.Add(Freshness + time.Second))
		}
		if change := relabel(node.Labels, want); change != nil {
			p.labels = append(p.labels, nodeLabels{node.Name, node.UID, change})
		}
	}
	for _, n := range s.agentNodes {
		if !there[n.Name] {
			p.stale = append(p.stale, n)
		}
	}
	slices.SortFunc(p.labels, func(a, b nodeLabels) int { return cmp.Compare(a.node, b.node) })
}

// relabel returns what makes a node's labels say that these handlers are ready, and no others; nil if they do.
func relabel(labels map[string]string, ready []string) map[string]*string {
	var change map[string]*string
	put := func(name string, value *string) {
		if change == nil {
			change = map[string]*string{}
		}
		change[name] = value
	}
	for name, value := range labels {
		if handler, ours := strings.CutPrefix(name, v1alpha1.HandlerLabel); ours && (value != v1alpha1.Ready || !slices.Contains(ready, handler)) {
			put(name, nil)
		}
	}
	for _, handler := range ready {
		name := v1alpha1.HandlerLabel + handler
		if labels[name] != v1alpha1.Ready {
			value := v1alpha1.Ready
			put(name, &value)
		}
	}
	return change
}

// ready returns the handlers that a node says are ready, each once, as far as their names can be labels. One that is named twice is ready
// when both are.
func ready(n *v1alpha1.AgentNode) (names []string) {
	for _, h := range n.Status.Handlers[:min(len(n.Status.Handlers), maxHandlers)] {
		if h.Ready && !slices.Contains(names, h.Name) && len(validation.IsDNS1123Label(h.Name)) == 0 {
			names = append(names, h.Name)
		}
	}
	for _, h := range n.Status.Handlers {
		if !h.Ready {
			names = slices.DeleteFunc(names, func(name string) bool { return name == h.Name })
		}
	}
	return names
}

// look makes the plan be looked at again by then.
func (p *plan) look(at time.Time) {
	if p.next.IsZero() || at.Before(p.next) {
		p.next = at
	}
}

// pace bounds how often the counts of a document are written: in a large cluster they change all the time.
type pace struct {
	written map[types.UID]time.Time
}

// betweenCounts is the least time between two writes of a document's counts.
const betweenCounts = 5 * time.Second

// counts returns the counts to write now: the new ones when it is time, otherwise those that are written. It is always time when the
// status is to name another version in force than before: what is written was counted for that one.
func (c *pace) counts(d *v1alpha1.Document, inForce *v1alpha1.InForce, n v1alpha1.NodeCounts, now time.Time, p *plan) v1alpha1.NodeCounts {
	if n == d.Status.Nodes {
		return n
	}
	if due := c.written[d.UID].Add(betweenCounts); now.Before(due) && equality.Semantic.DeepEqual(inForce, d.Status.InForce) {
		p.look(due)
		return d.Status.Nodes
	}
	if c.written == nil {
		c.written = map[types.UID]time.Time{}
	}
	c.written[d.UID] = now
	return n
}

// forget drops what is kept of documents that are gone.
func (c *pace) forget(documents []*v1alpha1.Document) {
	alive := map[types.UID]bool{}
	for _, d := range documents {
		alive[d.UID] = true
	}
	maps.DeleteFunc(c.written, func(uid types.UID, _ time.Time) bool { return !alive[uid] })
}
