// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// agent is the agent's container with these values for traces, and the volumes of its pod.
func agent(t *testing.T, traces map[string]any) (corev1.Container, []corev1.Volume) {
	t.Helper()
	all := objects(t, render(t, map[string]any{"traces": traces}))
	pod := as[appsv1.DaemonSet](t, all["apps/v1/DaemonSet/"+namespace+"/metsuke-node"]).Spec.Template.Spec
	return pod.Containers[0], pod.Volumes
}

// Without an endpoint the agent is told nothing of OpenTelemetry; with one, what its SDK reads. What is secret is in no manifest.
func TestTraces(t *testing.T) {
	for name, traces := range map[string]map[string]any{"defaults": {}, "no endpoint": {"headersSecret": "s", "caConfigMap": "c", "ratio": 0.5}} {
		c, volumes := agent(t, traces)
		for _, e := range c.Env {
			if strings.HasPrefix(e.Name, "OTEL_") || e.Name == "NODE_IP" {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if slices.ContainsFunc(volumes, func(v corev1.Volume) bool { return v.Name == "collector" }) {
			t.Errorf("%s: %+v", name, volumes)
		}
	}
	ours := func(c corev1.Container) map[string]string {
		values := map[string]string{}
		for _, e := range c.Env {
			switch {
			case e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil:
				values[e.Name] = "secret " + e.ValueFrom.SecretKeyRef.Name + " " + e.ValueFrom.SecretKeyRef.Key
			case e.ValueFrom == nil:
				values[e.Name] = e.Value
			}
		}
		return values
	}
	c, _ := agent(t, map[string]any{"endpoint": "http://$(NODE_IP):4318"})
	want := map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://$(NODE_IP):4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1",
	}
	if diff := cmp.Diff(want, ours(c)); diff != "" {
		t.Error(diff)
	}
	at := func(name string) int {
		return slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
	}
	if ip := at("NODE_IP"); ip < 0 || ip > at("OTEL_EXPORTER_OTLP_ENDPOINT") {
		t.Error("NODE_IP does not come before what refers to it")
	}
	c, volumes := agent(t, map[string]any{"endpoint": "https://c:4317", "protocol": "grpc", "ratio": 0.25, "headersSecret": "token", "caConfigMap": "ca"})
	want = map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
		"OTEL_EXPORTER_OTLP_HEADERS": "secret token headers", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/collector/ca.crt",
	}
	if diff := cmp.Diff(want, ours(c)); diff != "" {
		t.Error(diff)
	}
	ca := slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == "ca" })
	if ca < 0 || !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == volumes[ca].Name && m.MountPath == "/collector" && m.ReadOnly
	}) {
		t.Errorf("the certificates are not mounted: %+v, %+v", volumes, c.VolumeMounts)
	}
}
