// SPDX-License-Identifier: Apache-2.0

// Package servertest serves CRI on a unix socket for tests, as containerd would, without running anything.
package servertest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Server answers with what is in it. Set its fields before the first request.
type Server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	Endpoint   string // unix:///path
	Runtime    string // who answers: "containerd"
	Release    string // which one: "v2.4.2"
	Config     string // what the verbose Status says of the configuration; empty: nothing
	Conditions []*runtimeapi.RuntimeCondition
	Scenario   Scenario

	mu         sync.Mutex
	pods       []*runtimeapi.PodSandbox // guarded by mu
	containers []container              // guarded by mu; the number is the id
	ran        int                      // guarded by mu; sandboxes
}

// Start serves until the test ends.
func Start(t *testing.T) *Server {
	t.Helper()
	s := &Server{Runtime: "containerd", Release: "v2.4.2"}
	path := filepath.Join(t.TempDir(), "cri.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s.Endpoint = "unix://" + path
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, s)
	runtimeapi.RegisterImageServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it was never dialled
			t.Errorf("serve CRI: %v", err)
		}
	})
	return s
}

// AddPods adds sandboxes that others made.
func (s *Server) AddPods(pods ...*runtimeapi.PodSandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = append(s.pods, pods...)
}

// Version implements CRI.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if s.Runtime == "" {
		return nil, status.Error(codes.Unimplemented, "no runtime")
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: s.Runtime, RuntimeVersion: s.Release, RuntimeApiVersion: "v1"}, nil
}

// Status implements CRI.
func (s *Server) Status(_ context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	out := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: s.Conditions}}
	if r.GetVerbose() && s.Config != "" {
		out.Info = map[string]string{"config": s.Config, "golang": `"go1.26"`}
	}
	return out, nil
}

// ListPodSandbox implements CRI, without filters.
func (s *Server) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &runtimeapi.ListPodSandboxResponse{Items: append([]*runtimeapi.PodSandbox(nil), s.pods...)}, nil
}
