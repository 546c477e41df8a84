// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"metsuke.dev/metsuke/node/cri/servertest"
)

var pod = PodConfig{Namespace: "metsuke-doctor", Name: "canary", UID: "u1", Handler: "metsuke", HostNetwork: true, CgroupParent: "system.slice"}

// A pod is run with what was asked, of an image that is there, and is gone after RemovePods, which takes no other.
func TestRun(t *testing.T) {
	server := servertest.Start(t)
	server.AddPods(&runtimeapi.PodSandbox{Id: "other", Metadata: &runtimeapi.PodSandboxMetadata{Uid: "u2"}})
	started := 0
	server.Scenario.OnStart = func(p *runtimeapi.PodSandboxConfig, handler string, c *runtimeapi.ContainerConfig) error {
		started++
		m, linux, security := p.GetMetadata(), p.GetLinux(), c.GetLinux().GetSecurityContext()
		if m.GetNamespace() != "metsuke-doctor" || m.GetName() != "canary" || m.GetUid() != "u1" || handler != "metsuke" || linux.GetCgroupParent() != "system.slice" {
			t.Errorf("sandbox %v under %s", p, handler)
		}
		for _, o := range []*runtimeapi.NamespaceOption{linux.GetSecurityContext().GetNamespaceOptions(), security.GetNamespaceOptions()} {
			if o.GetNetwork() != runtimeapi.NamespaceMode_NODE || o.GetPid() != runtimeapi.NamespaceMode_CONTAINER {
				t.Errorf("namespaces %v", o)
			}
		}
		if security.GetSeccomp().GetProfileType() != runtimeapi.SecurityProfile_Unconfined || c.GetMetadata().GetName() != "c" {
			t.Errorf("container %v", c)
		}
		return nil
	}
	c := dial(t, server.Endpoint)
	id, err := c.RunPod(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	image, err := c.PodImage(t.Context(), id)
	if err != nil || image != servertest.Image {
		t.Fatalf("%s, %v", image, err)
	}
	if err := c.RunContainer(t.Context(), id, pod, "c", image); err != nil || started != 1 {
		t.Fatal(started, err)
	}
	if err := c.RemovePods(t.Context(), func(p Pod) bool { return p.UID == "u1" }); err != nil {
		t.Fatal(err)
	}
	if left := server.Pods(); !slices.Equal(left, []string{"other"}) {
		t.Errorf("left: %q", left)
	}
}

func TestRunFails(t *testing.T) {
	for method, want := range map[string]string{
		"RunPodSandbox": "run a pod under metsuke", "PodSandboxStatus": "ask for the sandbox",
		"CreateContainer": "create a container", "StartContainer": "start the container", "StopPodSandbox": "remove pod run-1",
	} {
		t.Run(method, func(t *testing.T) {
			server := servertest.Start(t)
			server.Scenario.Errors = map[string]error{method: status.Error(codes.Internal, "no")}
			server.Scenario.OnStart = func(*runtimeapi.PodSandboxConfig, string, *runtimeapi.ContainerConfig) error {
				return server.Scenario.Errors["StartContainer"]
			}
			c := dial(t, server.Endpoint)
			id, err := c.RunPod(t.Context(), pod)
			if err == nil {
				_, err = c.PodImage(t.Context(), id)
			}
			if err == nil {
				err = c.RunContainer(t.Context(), id, pod, "c", servertest.Image)
			}
			if err == nil {
				err = c.RemovePods(t.Context(), func(Pod) bool { return true })
			}
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}
