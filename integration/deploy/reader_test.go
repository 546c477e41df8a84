// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The API server's way to the controller: the APIService names a Service that leads to a port of its pods, and no certificate, which the
// controller puts there itself.
func TestDoorIsReached(t *testing.T) {
	all := objects(t, render(t, map[string]any{"readers": map[string]any{"enabled": true}}))
	const controller = namespace + "/metsuke-controller"
	service := as[corev1.Service](t, all["v1/Service/"+controller])
	pod := as[appsv1.Deployment](t, all["apps/v1/Deployment/"+controller]).Spec.Template
	spec, _ := all["apiregistration.k8s.io/v1/APIService/<nil>/v1alpha1.reader.metsuke.dev"]["spec"].(map[string]any)
	to, _ := spec["service"].(map[string]any)
	if to["name"] != service.Name || to["namespace"] != namespace || to["port"] != 443.0 || spec["caBundle"] != nil || spec["insecureSkipTLSVerify"] != nil {
		t.Errorf("the APIService says %v", spec)
	}
	for key, value := range service.Spec.Selector {
		if pod.Labels[key] != value {
			t.Errorf("the Service does not select the pods: %s", key)
		}
	}
	port := service.Spec.Ports[0]
	if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) || port.Port != 443 {
		t.Errorf("the Service leads to %+v", port)
	}
	if !slices.ContainsFunc(pod.Spec.Containers[0].Command, func(arg string) bool { return strings.HasPrefix(arg, "--listen=") }) {
		t.Error("the controller does not listen")
	}
}

// Our own ServiceAccounts read no pods and no tokens; only what is for people does.
func TestOwnRightsToRead(t *testing.T) {
	all := objects(t, render(t, map[string]any{"readers": map[string]any{"enabled": true}}))
	bound := map[string]bool{}
	for _, o := range all {
		switch o["kind"] {
		case "ClusterRoleBinding":
			bound[as[rbacv1.ClusterRoleBinding](t, o).RoleRef.Name] = true
		case "RoleBinding":
			bound[as[rbacv1.RoleBinding](t, o).RoleRef.Name] = true
		}
	}
	for id, o := range all {
		if o["kind"] != "ClusterRole" {
			continue
		}
		role := as[rbacv1.ClusterRole](t, o)
		for _, r := range role.Rules {
			for _, resource := range []string{"pods", "pods/log", "tokenreviews", "serviceaccounts/token", "agentpods", "agentpods/log"} {
				if bound[role.Name] && slices.Contains(r.Resources, resource) {
					t.Errorf("%s gives us %s", id, resource)
				}
			}
			if slices.Contains(r.Resources, "apiservices") && !slices.Equal(r.ResourceNames, []string{"v1alpha1.reader.metsuke.dev"}) {
				t.Errorf("%s reaches all APIServices", id)
			}
		}
	}
	for _, name := range []string{"metsuke-reader", "metsuke-node-reader"} {
		if bound[name] || all["rbac.authorization.k8s.io/v1/ClusterRole/<nil>/"+name] == nil {
			t.Errorf("%s is bound, or not there", name)
		}
	}
}

// What TestReaders has on kind (integration/kind/e2e) is what the chart makes with readers.enabled=true, and the namespace.
func TestReadersOnKind(t *testing.T) {
	const dir = "../kind/e2e/testdata/readers"
	helm, installed := objects(t, render(t, map[string]any{"readers": map[string]any{"enabled": true}})), objects(t, render(t, nil))
	if *update {
		added := maps.Clone(helm)
		maps.DeleteFunc(added, func(id string, _ object) bool { return installed[id] != nil })
		write(t, dir+"/added.yaml", inOneFile(t, added))
	}
	all := build(t, dir)
	delete(all, "v1/Namespace/<nil>/"+namespace)
	if diff := cmp.Diff(helm, all); diff != "" {
		t.Errorf("helm (-) and kustomize (+) differ; run with -update, or mend the patches in %s:\n%s", dir, diff)
	}
}
