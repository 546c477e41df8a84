// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Pods are scraped once: by their annotations, or by PodMonitors in their place; at the port that the program listens on.
func TestScraping(t *testing.T) {
	for name, podMonitor := range map[string]bool{"annotations": false, "PodMonitors": true} {
		monitors, workloads := 0, 0
		all := objects(t, render(t, map[string]any{"metrics": map[string]any{"podMonitor": podMonitor, "port": 9999}}))
		for id, o := range all {
			var pod corev1.PodTemplateSpec
			switch o["kind"] {
			case "PodMonitor":
				monitors++
				continue
			case "DaemonSet":
				pod = as[appsv1.DaemonSet](t, o).Spec.Template
			case "Deployment":
				pod = as[appsv1.Deployment](t, o).Spec.Template
			default:
				continue
			}
			workloads++
			main := pod.Spec.Containers[0]
			if !slices.ContainsFunc(main.Command, func(arg string) bool { return strings.HasSuffix(arg, "--metrics-address=:9999") }) ||
				len(main.Ports) == 0 || main.Ports[0].Name != "metrics" || main.Ports[0].ContainerPort != 9999 {
				t.Errorf("%s: %s: %q, %+v", name, id, main.Command, main.Ports)
			}
			if port := pod.Annotations["prometheus.io/port"]; (port == "9999") == podMonitor {
				t.Errorf("%s: %s: %v", name, id, pod.Annotations)
			}
		}
		if want := map[bool]int{false: 0, true: 2}[podMonitor]; monitors != want || workloads != 2 {
			t.Errorf("%s: %d PodMonitors for %d workloads", name, monitors, workloads)
		}
	}
}

// The kubelet asks each of our programs whether it is alive, where it says so.
func TestLiveness(t *testing.T) {
	for id, pod := range pods(t) {
		main := pod.Containers[0]
		if main.LivenessProbe == nil || main.LivenessProbe.HTTPGet == nil {
			t.Errorf("%s has no liveness probe", id)
			continue
		}
		probe, served := main.LivenessProbe.HTTPGet, strings.Join(main.Command, " ")
		if probe.Path != "/healthz" || len(main.Ports) == 0 || probe.Port.StrVal != main.Ports[0].Name || !strings.Contains(served, fmt.Sprintf("--metrics-address=:%d", main.Ports[0].ContainerPort)) {
			t.Errorf("%s is asked at %+v, and runs %s with %+v", id, probe, served, main.Ports)
		}
	}
}
