// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"metsuke.dev/metsuke/config"
)

// value is that of a family without labels; -1: there is none.
func value(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name || len(f.GetMetric()) == 0 {
			continue
		}
		m := f.GetMetric()[0]
		return m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return -1
}

// TestRetention: what rounds tell is shown; what they had done before is in no counter; and a file that is none changes nothing.
func TestRetention(t *testing.T) {
	root := t.TempDir()
	m := New(root, "v")
	tell := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, "a"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "a/.retention.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	summary := func(bytes, removed int) string {
		return fmt.Sprintf(`{"time":"2026-01-01T00:00:00Z","last":{"bytes":%d,"largest":7,"backlog":9},"total":{"removed":%d}}`, bytes, removed)
	}
	want := func(name string, want float64) {
		t.Helper()
		if got := value(t, m, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	m.lookAtRetention([]string{"a"})
	want("metsuke_audit_bytes", -1)
	m = New(root, "v")
	tell(summary(100, 50))
	m.lookAtRetention([]string{"a", "b"})
	want("metsuke_audit_bytes", 100)
	want("metsuke_retention_backlog_bytes", 9)
	want("metsuke_audit_largest_pod_bytes", 7)
	tell(summary(60, 90))
	m.lookAtRetention([]string{"a"})
	want("metsuke_audit_bytes", 60)
	want("metsuke_retention_removed_bytes_total", 40)
	tell("{")
	m.lookAtRetention([]string{"a"})
	want("metsuke_audit_bytes", 60)
	tell(summary(60, 5)) // which began anew
	m.lookAtRetention([]string{"a"})
	want("metsuke_retention_removed_bytes_total", 45)
}

func TestLeastBudget(t *testing.T) {
	m := New(t.TempDir(), "v")
	with := func(pod, node int64) *config.Config {
		return &config.Config{Audit: config.Audit{PodBudget: pod, NodeBudget: node}}
	}
	m.budget([]*config.Config{with(0, 0)})
	if got := value(t, m, "metsuke_audit_budget_bytes"); got != -1 {
		t.Errorf("without one: %v", got)
	}
	m.budget([]*config.Config{with(9, 0), with(0, 0), with(7, 0)})
	if got := value(t, m, "metsuke_audit_budget_bytes"); got != 7 {
		t.Errorf("the least: %v", got)
	}
}
