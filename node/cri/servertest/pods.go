// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image is that of every sandbox.
const Image = "registry.k8s.io/pause:3.10"

// Scenario is what becomes of pods.
type Scenario struct {
	// OnStart is what a handler's shim does when a container starts; its error is that of StartContainer.
	OnStart func(pod *runtimeapi.PodSandboxConfig, handler string, container *runtimeapi.ContainerConfig) error
	// Errors are the answers of CRI's methods, by their names.
	Errors map[string]error
	// Stopped is how many sandboxes, from the first, somebody stops before a container is made in them.
	Stopped int
}

// container is one that was created and not started yet.
type container struct {
	sandbox *runtimeapi.PodSandbox
	pod     *runtimeapi.PodSandboxConfig
	config  *runtimeapi.ContainerConfig
}

// Pods returns the ids of the sandboxes that are there.
func (s *Server) Pods() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pods {
		ids = append(ids, p.GetId())
	}
	return ids
}

// Ran returns how many sandboxes were run.
func (s *Server) Ran() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ran
}

// RunPodSandbox implements CRI.
func (s *Server) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ran++
	if err := s.Scenario.Errors["RunPodSandbox"]; err != nil {
		return nil, err
	}
	p := &runtimeapi.PodSandbox{Id: fmt.Sprintf("run-%d", s.ran), Metadata: r.GetConfig().GetMetadata(), RuntimeHandler: r.GetRuntimeHandler()}
	s.pods = append(s.pods, p)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: p.GetId()}, nil
}

// PodSandboxStatus implements CRI.
func (s *Server) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(r.GetPodSandboxId()) < 0 {
		return nil, status.Errorf(codes.NotFound, "no sandbox %s", r.GetPodSandboxId())
	}
	info := map[string]string{"info": fmt.Sprintf(`{"pid":1,"image":%q,"runtimeType":"io.containerd.metsuke.v2"}`, Image)}
	return &runtimeapi.PodSandboxStatusResponse{Info: info}, s.Scenario.Errors["PodSandboxStatus"]
}

// CreateContainer implements CRI.
func (s *Server) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(r.GetPodSandboxId())
	if at < 0 {
		return nil, status.Errorf(codes.NotFound, "no sandbox %s", r.GetPodSandboxId())
	}
	if s.ran <= s.Scenario.Stopped {
		s.pods[at].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		return nil, status.Errorf(codes.Unknown, "sandbox container %q is not running", r.GetPodSandboxId())
	}
	if err := s.Scenario.Errors["CreateContainer"]; err != nil {
		return nil, err
	}
	if r.GetConfig().GetImage().GetImage() != Image {
		return nil, status.Errorf(codes.NotFound, "no image %s", r.GetConfig().GetImage().GetImage())
	}
	s.containers = append(s.containers, container{s.pods[at], r.GetSandboxConfig(), r.GetConfig()})
	return &runtimeapi.CreateContainerResponse{ContainerId: fmt.Sprint(len(s.containers) - 1)}, nil
}

// StartContainer implements CRI.
func (s *Server) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := strconv.Atoi(r.GetContainerId())
	if err != nil || i < 0 || i >= len(s.containers) {
		return nil, status.Errorf(codes.NotFound, "no container %s", r.GetContainerId())
	}
	c := s.containers[i]
	if s.Scenario.OnStart != nil {
		if err := s.Scenario.OnStart(c.pod, c.sandbox.GetRuntimeHandler(), c.config); err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopPodSandbox implements CRI.
func (s *Server) StopPodSandbox(_ context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.find(r.GetPodSandboxId()); at >= 0 {
		s.pods[at].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	return &runtimeapi.StopPodSandboxResponse{}, s.Scenario.Errors["StopPodSandbox"]
}

// RemovePodSandbox implements CRI. Like containerd, it refuses one that was not stopped.
func (s *Server) RemovePodSandbox(_ context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.find(r.GetPodSandboxId()); at >= 0 {
		if s.pods[at].GetState() == runtimeapi.PodSandboxState_SANDBOX_READY {
			return nil, status.Errorf(codes.Unknown, "sandbox %s is not fully stopped", r.GetPodSandboxId())
		}
		s.pods = slices.Delete(s.pods, at, at+1)
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// find returns a sandbox's place in s.pods, or -1.
func (s *Server) find(id string) int {
	return slices.IndexFunc(s.pods, func(p *runtimeapi.PodSandbox) bool { return p.GetId() == id })
}
