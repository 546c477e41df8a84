// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
	"metsuke.dev/metsuke/node/metrics"
)

// asAgent returns the metrics of an agent that has the node's root mounted elsewhere, and one handler's configuration in it.
func (h *harness) asAgent(handler string) *metrics.Metrics {
	h.t.Helper()
	root, err := os.MkdirTemp("", "m") // short enough for sockets below it
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(root) })
	entries, err := os.ReadDir("/")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "etc" {
			if err := os.Symlink("/"+e.Name(), filepath.Join(root, e.Name())); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(h.ConfigPath(handler))
	if err != nil {
		h.t.Fatal(err)
	}
	etc := filepath.Join(root, "etc/metsuke")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "config.toml"), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return metrics.New(root, "v1")
}

// value sums the series of a family that have the labels, "name=value" each; of a histogram, what it has counted.
func value(m *metrics.Metrics, name string, labels ...string) (sum float64, err error) {
	families, err := m.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, s := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range s.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for _, l := range labels {
				if name, value, _ := strings.Cut(l, "="); has[name] != value {
					continue series
				}
			}
			sum += s.GetGauge().GetValue() + s.GetCounter().GetValue() + float64(s.GetHistogram().GetSampleCount())
		}
	}
	return sum, nil
}

// What a pod does is in the node's metrics, also what it did after it was last asked.
func TestMetrics(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		m := h.asAgent(baseline)
		type want map[string]float64 // by name and labels
		holds := func(when string, w want) {
			t.Helper()
			h.eventually("the metrics "+when, func() error {
				if err := m.Poll(h.ctx); err != nil {
					return err
				}
				for series, n := range w {
					words := strings.Fields(series)
					if got, err := value(m, words[0], words[1:]...); err != nil || got != n {
						return fmt.Errorf("%s is %v, not %v: %w", series, got, n, err)
					}
				}
				return nil
			})
		}
		holds("of a node without pods", want{"metsuke_pods": 0})
		p := h.pod(stand.PodConfig{Handler: baseline})
		c := p.shell("workload syscall ptrace; exec workload pause")
		holds("of a pod", want{
			"metsuke_pods handler=config profile=baseline state=running": 1,
			"metsuke_container_starts_total profile=baseline":            1,
			"metsuke_container_start_seconds phase=resolve":              1,
			"metsuke_container_start_seconds phase=rewrite":              1,
			"metsuke_container_start_seconds phase=delegate":             1,
			"metsuke_container_start_seconds phase=armed":                1,
			"metsuke_container_start_failures_total":                     0,
			"metsuke_denials_total origin=baseline rule=no-ptrace":       1,
			"metsuke_denials_total origin=baseline rule=no-mount":        0,
			"metsuke_outdated_containers":                                0,
			"metsuke_losses_total":                                       0,
			"metsuke_containers handler=config profile=baseline":         1,
		})
		c.exec("workload", "syscall", "mount")
		p.remove()
		holds("of a pod that is gone", want{
			"metsuke_pods": 0, "metsuke_container_starts_total": 1, "metsuke_exec_sessions_total": 1,
			"metsuke_denials_total origin=baseline rule=no-ptrace": 1, "metsuke_denials_total origin=baseline rule=no-mount": 1,
		})
	})
}
