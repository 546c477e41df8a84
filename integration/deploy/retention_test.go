// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// daemonSet is the one that the chart makes of these values.
func daemonSet(t *testing.T, values map[string]any) corev1.PodSpec {
	t.Helper()
	o := objects(t, render(t, values))["apps/v1/DaemonSet/"+namespace+"/metsuke-node"]
	if o == nil {
		t.Fatal("there is no DaemonSet")
	}
	return as[appsv1.DaemonSet](t, o).Spec.Template.Spec
}

func named(name string) func(corev1.Container) bool {
	return func(c corev1.Container) bool { return c.Name == name }
}

// Retention writes to the streams alone, reads the configuration and the key, and gets nothing to reach the API server with.
func TestRetention(t *testing.T) {
	pod := daemonSet(t, nil)
	i := slices.IndexFunc(pod.Containers, named("retain"))
	if i < 1 { // the first one is the pod's main one
		t.Fatalf("it is container %d", i)
	}
	c := pod.Containers[i]
	if !slices.Equal(c.Command, []string{"/metsuke", "audit", "retain", "--every", "1m"}) {
		t.Errorf("it runs %q", c.Command)
	}
	host := map[string]string{}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			host[v.Name] = v.HostPath.Path
		}
	}
	masked := false
	for _, m := range c.VolumeMounts {
		writable := map[string]bool{"/var/log/metsuke": true}[m.MountPath]
		if m.ReadOnly == writable {
			t.Errorf("%s: read-only %v", m.MountPath, m.ReadOnly)
		}
		if m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
			masked = true
		} else if host[m.Name] != m.MountPath {
			t.Errorf("%s of the node is at %s", host[m.Name], m.MountPath)
		}
	}
	if !masked || len(c.VolumeMounts) != 4 {
		t.Errorf("it has %+v", c.VolumeMounts)
	}
	for name, values := range map[string]map[string]any{
		"off":          {"retention": map[string]any{"enabled": false}},
		"uninstalling": {"node": map[string]any{"uninstall": true}},
	} {
		if pod := daemonSet(t, values); slices.ContainsFunc(pod.Containers, named("retain")) {
			t.Errorf("%s, and it is there", name)
		}
	}
}
