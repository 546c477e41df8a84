// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/containerd/log"
	"k8s.io/klog/v2"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // a test that fails says why
	_ = log.SetLevel("error")
	os.Exit(m.Run())
}

// A change reaches twenty real agents through a real API server, each with its own credentials, and so do restarts.
func TestRollout(t *testing.T) {
	programs, err := Find("../..", false)
	if errors.Is(err, ErrNotBuilt) {
		t.Skip("left out: etcd and Kubernetes are not in the cache of tools; make rollout builds them, which takes up to a quarter of an hour")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	const nodes = 20
	result, err := Run(ctx, Options{
		Programs: programs, Nodes: nodes, Documents: 3, Changes: 1, Settle: 10 * time.Millisecond, Spread: time.Second, Restarts: true, Progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"join", "change", "agents restart", "heartbeats", "API server restarts"} {
		if got := result.Phases[i].Name; got != want {
			t.Errorf("phase %d is %q, want %q", i, got, want)
		}
	}
	change := result.Phases[1]
	for of, n := range map[string]int{"accepted": 1, "in force": nodes, "acknowledged": nodes, "status complete": 1} {
		if got := change.Latencies[of]; got.N != n || got.Min <= 0 {
			t.Errorf("change: %s: %+v, want %d times", of, got, n)
		}
	}
	// Each agent has one event of the change, and sends one report.
	if got := change.Load.WatchEvents; got < nodes || got > nodes+3 { // and those who watch for the test
		t.Errorf("change: %v events", got)
	}
	if got := change.Load.Requests["PATCH agentnodes"]; got != nodes {
		t.Errorf("change: %v reports in %v", got, change.Load.Requests)
	}
}

func TestQuantiles(t *testing.T) {
	var seconds []float64
	for i := range 200 {
		seconds = append(seconds, float64(200-i))
	}
	if got, want := quantiles(seconds), (Quantiles{N: 200, Min: 1, P50: 100, P99: 198, Max: 200}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := quantiles([]float64{7}), (Quantiles{N: 1, Min: 7, P50: 7, P99: 7, Max: 7}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestFit(t *testing.T) {
	l := fit([]float64{1, 2, 4}, []float64{12, 14, 18})
	if got := l.at(100); got < 209.99 || got > 210.01 {
		t.Errorf("%v, want 210", got)
	}
	if flat := fit([]float64{3}, []float64{6}); flat.at(30) != 60 {
		t.Errorf("of one point: %v, want what is proportional to it", flat.at(30))
	}
}
