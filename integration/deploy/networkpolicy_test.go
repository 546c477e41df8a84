// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Who reaches which port of our pods.
func TestNetworkPolicies(t *testing.T) {
	const scrapers, controller, apiServer, anybody = "scrapers", "controller", "api-server", "anybody"
	for name, c := range map[string]struct {
		readers     bool
		metricsFrom []any
		readersFrom []any
		want        map[string]map[int32]string // by the pods' name and the port
	}{
		"no readers": {false, peers(scrapers), peers(apiServer), map[string]map[int32]string{
			"metsuke-node": {9999: scrapers}, "metsuke-controller": {9999: scrapers},
		}},
		"nobody scrapes": {false, nil, nil, map[string]map[int32]string{"metsuke-node": {}, "metsuke-controller": {}}},
		"readers": {true, peers(scrapers), peers(apiServer), map[string]map[int32]string{
			"metsuke-node": {9999: scrapers, 8443: controller}, "metsuke-controller": {9999: scrapers, 8443: apiServer},
		}},
		"readers, from wherever the API server is": {true, nil, nil, map[string]map[int32]string{
			"metsuke-node": {8443: controller}, "metsuke-controller": {8443: anybody},
		}},
	} {
		all := objects(t, render(t, map[string]any{
			"metrics": map[string]any{"port": 9999}, "readers": map[string]any{"enabled": c.readers},
			"networkPolicy": map[string]any{"enabled": true, "metricsFrom": c.metricsFrom, "readersFrom": c.readersFrom},
		}))
		listening := map[string][]int32{} // by the pods' name
		for _, o := range all {
			var pod corev1.PodTemplateSpec
			switch o["kind"] {
			case "DaemonSet":
				pod = as[appsv1.DaemonSet](t, o).Spec.Template
			case "Deployment":
				pod = as[appsv1.Deployment](t, o).Spec.Template
			default:
				continue
			}
			for _, p := range pod.Spec.Containers[0].Ports {
				listening[pod.Labels[nameLabel]] = append(listening[pod.Labels[nameLabel]], p.ContainerPort)
			}
		}
		got := map[string]map[int32]string{}
		for id, o := range all {
			if o["kind"] != "NetworkPolicy" {
				continue
			}
			spec := as[networkingv1.NetworkPolicy](t, o).Spec
			if !slices.Equal(spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}) || len(spec.PodSelector.MatchLabels) != 1 {
				t.Errorf("%s: %s: %+v", name, id, spec)
			}
			of := spec.PodSelector.MatchLabels[nameLabel]
			got[of] = map[int32]string{}
			for _, rule := range spec.Ingress {
				if len(rule.Ports) != 1 || !slices.Contains(listening[of], rule.Ports[0].Port.IntVal) {
					t.Errorf("%s: %s: nobody listens at %+v", name, id, rule.Ports)
					continue
				}
				got[of][rule.Ports[0].Port.IntVal] = who(rule.From)
			}
		}
		if !maps.EqualFunc(got, c.want, maps.Equal[map[int32]string]) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

const nameLabel = "app.kubernetes.io/name"

func peers(name string) []any {
	return []any{map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{"who": name}}}}
}

// who names the peers of a rule.
func who(from []networkingv1.NetworkPolicyPeer) string {
	var all []string
	for _, peer := range from {
		switch {
		case peer.NamespaceSelector != nil:
			all = append(all, peer.NamespaceSelector.MatchLabels["who"])
		case peer.PodSelector != nil && peer.IPBlock == nil:
			all = append(all, strings.TrimPrefix(peer.PodSelector.MatchLabels[nameLabel], "metsuke-"))
		default:
			all = append(all, "?")
		}
	}
	if len(from) == 0 {
		return "anybody"
	}
	return strings.Join(all, ", ")
}
