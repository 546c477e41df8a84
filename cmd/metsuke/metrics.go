// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/node/agent"
	"metsuke.dev/metsuke/node/metrics"
)

func addMetricsFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "metrics-address", "", "where to serve /metrics for Prometheus and /healthz for the kubelet, in plain HTTP, such as :9464 (default nowhere)")
}

// stuck is for how long the loop of an agent or a controller may not go round before it is taken for stuck. Between two beats there are
// three requests to the API server at most, and each ends within a minute: at the server's own limit, or when client-go finds the
// connection dead.
const stuck = 5 * time.Minute

// withMetrics runs work until it returns or ctx ends. Meanwhile count runs, unless it is nil, and what is counted is served at the address,
// if there is one, with the pulse. A server that fails ends the work.
func withMetrics(ctx context.Context, address string, from prometheus.Gatherer, pulse *exposition.Pulse, count func(context.Context), work func(context.Context) error) error {
	working, stop := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop(nil)
	if address != "" {
		server, err := exposition.Listen(address, from, pulse.Check)
		if err != nil {
			return fmt.Errorf("--metrics-address: %w", err)
		}
		beside.Go(func() {
			if err := server.Run(working); err != nil {
				stop(fmt.Errorf("metrics: %w", err))
			}
		})
	}
	if count != nil {
		beside.Go(func() { count(working) })
	}
	err := work(working)
	switch cause := context.Cause(working); {
	case ctx.Err() != nil:
		return nil // it was told to end
	case cause != nil && !errors.Is(err, cause):
		return errors.Join(cause, err)
	}
	return err
}

// toMetrics is what a report of the agent is in the node's metrics.
func toMetrics(r agent.Report) metrics.Report {
	out := metrics.Report{Refused: r.Profiles.Refused != "", Applied: r.Applied, Failed: r.Err != nil, Told: r.Err == nil, Ready: map[string]bool{}}
	for _, h := range r.Handlers {
		ready, twice := out.Ready[h.Name]
		out.Ready[h.Name] = h.Ready && (ready || !twice) // one that is named twice is ready when both are
	}
	return out
}
