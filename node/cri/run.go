// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodConfig says which pod RunPod is to run.
type PodConfig struct {
	Namespace, Name, UID string
	Handler              string
	HostNetwork          bool   // the node's network instead of one of its own, which needs a CNI plugin
	CgroupParent         string // "system.slice" where runc makes cgroups through systemd, which takes no other form
}

// RunPod runs a sandbox without containers, and returns its id. A sandbox may be there after an error too, as after one of ctx:
// RemovePods finds it.
func (c *Client) RunPod(ctx context.Context, p PodConfig) (id string, err error) {
	r, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.sandbox(), RuntimeHandler: p.Handler})
	if err != nil {
		return "", fmt.Errorf("run a pod under %s: %w", p.Handler, err)
	}
	return r.GetPodSandboxId(), nil
}

func (p *PodConfig) sandbox() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Namespace: p.Namespace, Name: p.Name, Uid: p.UID},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    p.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: p.namespaces()},
		},
	}
}

func (p *PodConfig) namespaces() *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER}
	if p.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	return o
}

// PodImage returns the image of a sandbox itself, which a node that runs pods has: its reference as containerd knows it.
func (c *Client) PodImage(ctx context.Context, id string) (string, error) {
	s, err := c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return "", fmt.Errorf("ask for the sandbox: %w", err)
	}
	var info struct { // 1.7: pkg/cri/server/sandbox_status.go, 2.x: internal/cri/server/podsandbox/types, SandboxInfo
		Image string `json:"image"`
	}
	if err := json.Unmarshal([]byte(s.GetInfo()["info"]), &info); err != nil {
		return "", fmt.Errorf("what the runtime says of the sandbox: %w", err)
	}
	if info.Image == "" {
		return "", errors.New("the runtime does not say what image the sandbox has")
	}
	return info.Image, nil
}

// RunContainer runs the entry point of an image that is on the node, in the pod that RunPod made of p, without a seccomp profile of
// CRI's.
func (c *Client) RunContainer(ctx context.Context, id string, p PodConfig, name, image string) error {
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: p.namespaces(),
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
		}},
	}
	made, err := c.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: id, SandboxConfig: p.sandbox(), Config: config})
	if err != nil {
		return fmt.Errorf("create a container: %w", err)
	}
	if _, err := c.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// RemovePods stops and removes all pods that match, with their containers. It is no error if they are gone meanwhile.
func (c *Client) RemovePods(ctx context.Context, match func(Pod) bool) error {
	pods, err := c.Pods(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range pods {
		if !match(p) {
			continue
		}
		// Both are idempotent (api.proto).
		_, err := c.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.ID})
		if err == nil {
			_, err = c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.ID})
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("remove pod %s: %w", p.ID, err))
		}
	}
	return errors.Join(failed...)
}
