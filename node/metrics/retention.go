// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/audit/retention"
	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/exposition"
)

// lookAtRetention takes in what its rounds have told. What they had done before the agent began is in no counter.
func (m *Metrics) lookAtRetention(dirs []string) {
	var last retention.Report
	var ended time.Time
	now := map[string]retention.Total{}
	for _, dir := range dirs {
		s, err := retention.LoadSummary(filepath.Join(m.root, dir))
		before, known := m.rounds[dir]
		if err != nil { // none runs, or it says so itself
			if known {
				now[dir] = before
			}
			continue
		}
		last.Bytes, last.Backlog, last.Largest = last.Bytes+s.Last.Bytes, last.Backlog+s.Last.Backlog, max(last.Largest, s.Last.Largest)
		if s.Time.After(ended) {
			ended = s.Time
		}
		now[dir] = s.Total
		if m.rounds != nil { // one that has begun since has done nothing before
			m.removed.Add(grown(s.Total.Removed, before.Removed))
			m.saved.Add(grown(s.Total.Saved, before.Saved))
			m.problems.Add(grown(s.Total.Problems, before.Problems))
		}
	}
	m.rounds = now
	if ended.IsZero() {
		return
	}
	m.kept.Set(float64(last.Bytes))
	m.largest.Set(float64(last.Largest))
	m.waiting.Set(float64(last.Backlog))
	m.retained.Set(seconds(ended))
}

// grown is by how much a counter grew, which begins anew if it is less.
func grown(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// budget shows the least of the budgets.
func (m *Metrics) budget(configs []*config.Config) {
	var pod, node int64
	for _, c := range configs {
		pod, node = least(pod, c.Audit.PodBudget), least(node, c.Audit.NodeBudget)
	}
	samples := []exposition.Sample{}
	for name, bytes := range map[string]int64{"pod": pod, "node": node} {
		if bytes > 0 {
			samples = append(samples, exposition.Sample{Value: float64(bytes), Labels: []string{name}})
		}
	}
	m.budgets.Replace(samples...)
}

// least is the lesser of two bounds, of which 0 is none.
func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
