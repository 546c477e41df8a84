// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Without being asked for, nothing is shipped; the shipper reads streams, writes checkpoints, and has nothing else of the node, nor of the cluster.
func TestShip(t *testing.T) {
	for id := range objects(t, render(t, nil)) {
		if strings.Contains(id, "ship") {
			t.Errorf("by default there is %s", id)
		}
	}
	const config = "version = 1\n[[sinks]]\nname = \"a\"\ntype = \"stdout\"\n"
	all := objects(t, render(t, map[string]any{
		"ship":          map[string]any{"enabled": true, "config": config, "secret": "shipping"},
		"metrics":       map[string]any{"podMonitor": true},
		"networkPolicy": map[string]any{"enabled": true},
	}))
	if c := as[corev1.ConfigMap](t, all["v1/ConfigMap/"+namespace+"/metsuke-ship"]); strings.TrimSpace(c.Data["ship.toml"]) != strings.TrimSpace(config) {
		t.Errorf("%q", c.Data)
	}
	pod := as[appsv1.DaemonSet](t, all["apps/v1/DaemonSet/"+namespace+"/metsuke-ship"]).Spec.Template.Spec
	c := pod.Containers[0]
	s := c.SecurityContext
	if pod.HostNetwork || pod.HostPID || *pod.AutomountServiceAccountToken || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Add) > 0 || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
		c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%+v", pod)
	}
	for _, m := range c.VolumeMounts {
		if !m.ReadOnly && m.MountPath != "/var/lib/metsuke/ship" {
			t.Errorf("it may write %s", m.MountPath)
		}
	}
	for _, v := range pod.Volumes {
		switch {
		case v.HostPath != nil && v.HostPath.Path != "/var/log/metsuke/audit" && v.HostPath.Path != "/var/lib/metsuke/ship":
			t.Errorf("it has %s of the node", v.HostPath.Path)
		case v.Secret != nil && (v.Secret.SecretName != "shipping" || *v.Secret.DefaultMode != 0o400):
			t.Errorf("%+v", v.Secret)
		}
	}
	policy := as[networkingv1.NetworkPolicy](t, all["networking.k8s.io/v1/NetworkPolicy/"+namespace+"/metsuke-ship"])
	if len(policy.Spec.Ingress) != 1 || len(policy.Spec.PolicyTypes) != 1 {
		t.Errorf("%+v", policy.Spec)
	}
	if all["monitoring.coreos.com/v1/PodMonitor/"+namespace+"/metsuke-ship"] == nil {
		t.Error("it is not scraped")
	}
}
