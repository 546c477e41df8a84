// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// as decodes an object into its type, strictly: what the API server would pass over as unknown is a fault here.
func as[T any](t *testing.T, o object) *T {
	t.Helper()
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	v := new(T)
	if err := yaml.UnmarshalStrict(text, v); err != nil {
		t.Fatalf("%s: %v", o.id(), err)
	}
	return v
}

func pods(t *testing.T) map[string]corev1.PodSpec {
	t.Helper()
	specs := map[string]corev1.PodSpec{}
	for id, o := range objects(t, render(t, nil)) {
		switch o["kind"] {
		case "DaemonSet":
			specs[id] = as[appsv1.DaemonSet](t, o).Spec.Template.Spec
		case "Deployment":
			specs[id] = as[appsv1.Deployment](t, o).Spec.Template.Spec
		}
	}
	if len(specs) != 2 {
		t.Fatalf("there are %d workloads", len(specs))
	}
	return specs
}

// capabilities are what containers were found to need on a node: each was tried without. docs/operators.md says what for.
var capabilities = map[string][]corev1.Capability{"install": {"SYS_CHROOT", "SYS_PTRACE"}, "agent": {"SYS_CHROOT"}}

// What our own pods may do is what they need.
func TestPrivileges(t *testing.T) {
	for id, pod := range pods(t) {
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("%s shares a namespace of the node", id)
		}
		if s := pod.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s has no seccomp profile", id)
		}
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			s := c.SecurityContext
			if s == nil || s.Privileged != nil && *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
				s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s, container %s: %+v", id, c.Name, s)
				continue
			}
			if s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s, container %s keeps capabilities: %+v", id, c.Name, s.Capabilities)
			}
			if !slices.Equal(s.Capabilities.Add, capabilities[c.Name]) {
				t.Errorf("%s, container %s has %v, and needs %v", id, c.Name, s.Capabilities.Add, capabilities[c.Name])
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s, container %s states no resources: %+v", id, c.Name, c.Resources)
			}
			for _, m := range c.VolumeMounts {
				if c.Name != "install" && m.MountPath == "/host" && !m.ReadOnly {
					t.Errorf("%s, container %s may write all over the node", id, c.Name)
				}
			}
		}
	}
}

// No role of ours has a wildcard, reads Secrets, or lets a node write more than its AgentNode.
func TestRoles(t *testing.T) {
	for id, o := range objects(t, render(t, nil)) {
		var rules []rbacv1.PolicyRule
		switch o["kind"] {
		case "ClusterRole":
			rules = as[rbacv1.ClusterRole](t, o).Rules
		case "Role":
			rules = as[rbacv1.Role](t, o).Rules
		}
		for _, r := range rules {
			for _, list := range [][]string{r.APIGroups, r.Resources, r.Verbs} {
				if slices.Contains(list, "*") {
					t.Errorf("%s has a wildcard: %+v", id, r)
				}
			}
			if slices.Contains(r.Resources, "secrets") {
				t.Errorf("%s reaches secrets: %+v", id, r)
			}
		}
		if o.id() != "rbac.authorization.k8s.io/v1/ClusterRole/<nil>/metsuke-node" {
			continue
		}
		for _, r := range rules {
			writes := slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "get" && v != "list" && v != "watch" })
			if writes && !slices.Equal(r.Resources, []string{"agentnodes"}) && !slices.Equal(r.Resources, []string{"agentnodes/status"}) {
				t.Errorf("a node's agent may write %v", r.Resources)
			}
		}
	}
}
