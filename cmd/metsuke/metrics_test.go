// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/internal/exposition"
	"metsuke.dev/metsuke/node/agent"
)

func TestWithMetrics(t *testing.T) {
	from, pulse := exposition.New("v1"), exposition.NewPulse(stuck)
	free, err := net.Listen("tcp", "127.0.0.2:0") // where nobody else listens, so that the port is still free below
	if err != nil {
		t.Fatal(err)
	}
	taken := free.Addr().String()
	err = withMetrics(t.Context(), taken, from, pulse, nil, func(context.Context) error { t.Error("it worked"); return nil })
	if err == nil || !strings.Contains(err.Error(), "--metrics-address") {
		t.Errorf("a taken address: %v", err)
	}
	free.Close()
	counted, failure := make(chan struct{}), errors.New("failure")
	err = withMetrics(t.Context(), taken, from, pulse, func(context.Context) { close(counted) }, func(context.Context) error {
		<-counted
		resp, err := http.Get("http://" + taken + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "metsuke_build_info") {
			t.Errorf("%q, %v", body, err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	counted = make(chan struct{})
	if err := withMetrics(ctx, "", from, pulse, func(context.Context) { close(counted) }, func(ctx context.Context) error { stop(); return ctx.Err() }); err != nil {
		t.Errorf("told to end: %v", err)
	}
	<-counted // also where nothing is served
}

func TestToMetrics(t *testing.T) {
	got := toMetrics(agent.Report{AgentNodeStatus: v1alpha1.AgentNodeStatus{Handlers: []v1alpha1.HandlerStatus{
		{Name: "a", Ready: true}, {Name: "b"}, {Name: "b", Ready: true}, {Name: "c", Ready: true}, {Name: "c"},
	}, Profiles: v1alpha1.ProfilesStatus{Refused: "why"}}, Err: errors.New("away")})
	if !maps.Equal(got.Ready, map[string]bool{"a": true, "b": false, "c": false}) || !got.Refused || !got.Failed || got.Told {
		t.Errorf("%+v", got)
	}
}
