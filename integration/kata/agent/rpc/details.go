// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"

	"metsuke.dev/metsuke/integration/kata/agent/sandbox"
)

// getGuestDetails says that seccomp is supported, without which the Go shim refuses a container with a filter (AG/rpc.rs
// get_guest_details, get_agent_details).
func (a agent) getGuestDetails(_ context.Context, r *grpc.GuestDetailsRequest) (*grpc.GuestDetailsResponse, error) {
	out := &grpc.GuestDetailsResponse{AgentDetails: &grpc.AgentDetails{
		Version:         Version,
		InitDaemon:      os.Getpid() == 1,
		StorageHandlers: sandbox.StorageDrivers,
		SupportsSeccomp: true,
	}}
	if r.MemBlockSize {
		// In hexadecimal; a guest without memory hotplug has no such file.
		text, err := os.ReadFile("/sys/devices/system/memory/block_size_bytes")
		if err == nil {
			out.MemBlockSizeBytes, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 16, 64)
		}
	}
	if r.MemHotplugProbe {
		_, err := os.Stat("/sys/devices/system/memory/probe")
		out.SupportMemHotplugProbe = err == nil
	}
	return out, nil
}

// getMetrics gives two of the real agent's many gauges, in the text form of Prometheus (AG/metrics.rs).
func (a agent) getMetrics(context.Context, *grpc.GetMetricsRequest) (*grpc.Metrics, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "# TYPE kata_agent_threads gauge\nkata_agent_threads %d\n", runtime.NumGoroutine())
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	text.WriteString("# TYPE kata_guest_load gauge\n")
	for i, value := range strings.Fields(string(load))[:3] {
		fmt.Fprintf(&text, "kata_guest_load{item=%q} %s\n", []string{"load1", "load5", "load15"}[i], value)
	}
	return &grpc.Metrics{Metrics: text.String()}, nil
}

type health struct{}

// Check answers that the agent serves.
func (health) Check(context.Context, *grpc.CheckRequest) (*grpc.HealthCheckResponse, error) {
	return &grpc.HealthCheckResponse{Status: grpc.HealthCheckResponse_SERVING}, nil
}

// Version answers which agent this is.
func (health) Version(context.Context, *grpc.CheckRequest) (*grpc.VersionCheckResponse, error) {
	return &grpc.VersionCheckResponse{GrpcVersion: grpc.APIVersion, AgentVersion: Version}, nil
}
