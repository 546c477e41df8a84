// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod is a pod's sandbox. Namespace, Name and UID are what its creator chose; the kubelet gives Kubernetes' own.
type Pod struct {
	ID        string // of the sandbox: containerd's
	Namespace string
	Name      string
	UID       string
	Handler   string // runtime handler; empty: containerd's default
	Ready     bool   // false: it has stopped, and is not removed yet
	Created   time.Time
}

// Pods lists all sandboxes, those that have stopped among them. A pod whose sandbox was made anew is in it twice until the kubelet
// removes the old one.
func (c *Client) Pods(ctx context.Context) ([]Pod, error) {
	list, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var out []Pod
	for _, s := range list.GetItems() {
		out = append(out, Pod{
			ID:        s.GetId(),
			Namespace: s.GetMetadata().GetNamespace(), Name: s.GetMetadata().GetName(), UID: s.GetMetadata().GetUid(),
			Handler: s.GetRuntimeHandler(),
			Ready:   s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
			Created: time.Unix(0, s.GetCreatedAt()),
		})
	}
	return out, nil
}
