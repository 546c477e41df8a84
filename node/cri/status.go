// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Condition is one of the runtime's conditions: RuntimeReady, NetworkReady, ContainerdHasNoDeprecationWarnings.
type Condition struct {
	Type    string
	Status  bool // true is good, with every condition
	Reason  string
	Message string
}

// Conditions asks how the runtime is.
func (c *Client) Conditions(ctx context.Context) ([]Condition, error) {
	s, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask for the status: %w", err)
	}
	var out []Condition
	for _, r := range s.GetStatus().GetConditions() {
		out = append(out, Condition{Type: r.GetType(), Status: r.GetStatus(), Reason: r.GetReason(), Message: r.GetMessage()})
	}
	return out, nil
}

// Handler is a runtime handler as it is in force: what containerd read when it started, whatever its files say now. Field by
// field it is containerd's Runtime (1.7: pkg/cri/config, 2.x: internal/cri/config), as far as Metsuke cares.
type Handler struct {
	RuntimeType          string         // "io.containerd.runc.v2"
	RuntimePath          string         // of the shim's binary; empty: found by the type
	Options              map[string]any // JSON's types
	PodAnnotations       []string       // patterns (path.Match) of the pod's annotations that reach the runtime
	ContainerAnnotations []string
	Snapshotter          string // empty: containerd's own choice
	Sandboxer            string // "podsandbox", "shim" or empty; 1.7 calls it sandbox_mode
	BaseRuntimeSpec      string // file with the specification to begin with; empty: none

	PrivilegedWithoutHostDevices bool
	CgroupWritable               bool // false on 1.7, which cannot
}

// Handlers returns the handlers in force by their names. It rests on the verbose form of CRI's Status, in which containerd 1.7 and
// 2.x put their configuration (1.7: pkg/cri/server/status.go, 2.x: internal/cri/server/status.go).
func (c *Client) Handlers(ctx context.Context) (map[string]Handler, error) {
	s, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("ask for the handlers: %w", err)
	}
	config, ok := s.GetInfo()["config"]
	if !ok {
		return nil, errors.New("the runtime does not say how it is configured; is it containerd?")
	}
	return parseHandlers(config)
}

// maxConfig bounds the configuration that is parsed, in bytes. Hundreds of handlers fit.
const maxConfig = 1 << 20

// rawHandler has JSON's names. Both versions have all but the last three, of which each version has what it has.
type rawHandler struct {
	RuntimeType                  string         `json:"runtimeType"`
	RuntimePath                  string         `json:"runtimePath"`
	Options                      map[string]any `json:"options"`
	PodAnnotations               []string       `json:"PodAnnotations"`       // so it is written
	ContainerAnnotations         []string       `json:"ContainerAnnotations"` // likewise
	Snapshotter                  string         `json:"snapshotter"`
	BaseRuntimeSpec              string         `json:"baseRuntimeSpec"`
	PrivilegedWithoutHostDevices bool           `json:"privileged_without_host_devices"`
	Sandboxer                    string         `json:"sandboxer"`
	SandboxMode                  string         `json:"sandboxMode"`
	CgroupWritable               bool           `json:"cgroupWritable"`
}

// parseHandlers reads containerd's configuration as its Status shows it.
func parseHandlers(config string) (map[string]Handler, error) {
	if len(config) > maxConfig {
		return nil, fmt.Errorf("the runtime's configuration is larger than %d bytes", maxConfig)
	}
	var doc struct {
		Containerd *struct {
			Runtimes map[string]rawHandler `json:"runtimes"`
		} `json:"containerd"`
	}
	if err := json.Unmarshal([]byte(config), &doc); err != nil {
		return nil, fmt.Errorf("the runtime's configuration: %w", err)
	}
	// An absent table is not a table without handlers: the latter cannot be with containerd, and would be believed.
	if doc.Containerd == nil || doc.Containerd.Runtimes == nil {
		return nil, errors.New("the runtime's configuration has no containerd.runtimes; Metsuke knows the form of containerd 1.7 to 2.4")
	}
	out := make(map[string]Handler, len(doc.Containerd.Runtimes))
	for name, r := range doc.Containerd.Runtimes {
		h := Handler{
			RuntimeType: r.RuntimeType, RuntimePath: r.RuntimePath, Options: r.Options,
			PodAnnotations: r.PodAnnotations, ContainerAnnotations: r.ContainerAnnotations,
			Snapshotter: r.Snapshotter, Sandboxer: r.Sandboxer, BaseRuntimeSpec: r.BaseRuntimeSpec,
			PrivilegedWithoutHostDevices: r.PrivilegedWithoutHostDevices, CgroupWritable: r.CgroupWritable,
		}
		if h.Sandboxer == "" {
			h.Sandboxer = r.SandboxMode
		}
		out[name] = h
	}
	return out, nil
}
