// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/integration/stand"
)

// Where our own parts are, and what the agent writes.
const (
	system   = "metsuke-system"
	mirrored = "/etc/metsuke/profiles.d/cluster.yaml"
)

// deployed makes a cluster, with so many workers, in which Metsuke is installed by its own manifests, those of a kustomization in the
// repository, and waits until its nodes are ready for pods.
func deployed(t *testing.T, name, manifests string, workers int) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setUpLimit)
	defer cancel()
	if err := docker.BuildImage(ctx, repository+"/deploy/Dockerfile", image, stand.Metsuke("")); err != nil {
		t.Fatal(err)
	}
	made, err := docker.Create(ctx, name, workers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Cluster: made}
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	out, err := c.Shell(ctx, repository, fmt.Sprintf(`set -e
		kind load docker-image %s --name %s
		kubectl apply --server-side -k %s
		kubectl -n %s rollout status daemonset/metsuke-node --timeout=5m
		kubectl -n %[4]s rollout status deployment/metsuke-controller --timeout=5m
		kubectl wait node --all --for=jsonpath='{.metadata.labels.handler\.metsuke\.dev/metsuke-runc}'=ready --timeout=5m`, image, name, manifests, system))
	if err != nil {
		logs, _ := c.Shell(ctx, repository, "kubectl -n "+system+" logs daemonset/metsuke-node --all-containers; kubectl -n "+system+
			" logs --selector app.kubernetes.io/name=metsuke-controller --prefix --tail=40; kubectl -n "+system+" describe pods")
		t.Fatalf("%v\n%s\n%s", err, out, logs)
	}
	return c
}

// sh runs a script as Shell does; it must succeed.
func (s *suite) sh(script string) string {
	s.t.Helper()
	out, err := s.Shell(s.ctx, repository, script)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// apply applies a manifest.
func (s *suite) apply(manifest string) {
	s.t.Helper()
	s.sh("kubectl apply -f - <<'EOF'\n" + manifest + "\nEOF")
}

// profile is the manifest of a profile and of the binding that gives it to the namespace.
func (s *suite) profile(denied string) string {
	return fmt.Sprintf(`{apiVersion: metsuke.dev/v1alpha1, kind: AgentProfile, metadata: {name: %[1]s},
  spec: {extends: [baseline], seccomp: {deny: [{id: ours, syscalls: [%[2]s]}]}}}
---
{apiVersion: metsuke.dev/v1alpha1, kind: ProfileBinding, metadata: {name: %[1]s}, spec: {namespaces: [%[1]s], default: %[1]s, allowed: [%[1]s]}}`,
		s.namespace, denied)
}

// rolledOut waits until all nodes have acknowledged the profile's generation, and returns its digest.
func (s *suite) rolledOut(generation int) (digest string) {
	s.t.Helper()
	s.eventually("the profile is to be in force on all nodes", func() error {
		got := s.sh(fmt.Sprintf(`kubectl get agentprofile %s -o jsonpath='{.status.inForce.generation} {.status.nodes.acknowledged}/{.status.nodes.total} {.status.inForce.digest}'`, s.namespace))
		rest, found := strings.CutPrefix(got, fmt.Sprintf("%d %d/%[2]d ", generation, len(s.Nodes)))
		if !found {
			return fmt.Errorf("it is %q", got)
		}
		digest = rest
		return nil
	})
	return digest
}

// under says which profile a container started with: the newest receipt in its stream.
func (s *suite) under(pod *corev1.Pod, container string) (name, digest string) {
	s.t.Helper()
	for _, e := range s.events(pod, container) {
		if e.Kind == "start" {
			name, digest = e.Profile, fmt.Sprint(e.Fields["profileDigest"])
		}
	}
	return name, digest
}

// Metsuke installed by its own manifests: what documents, policies, agent and controller do in a cluster.
func TestCluster(t *testing.T) {
	c := deployed(t, "metsuke-deployed", "deploy", 0)
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"policies are sound", (*suite).policiesAreSound},
		{"agents write their own node", (*suite).agentsWriteTheirOwnNode},
		{"pods go where they can run", (*suite).podsGoWhereTheyCanRun},
		{"a profile reaches new pods", (*suite).profileReachesNewPods},
		{"a second binding is refused", (*suite).secondBindingIsRefused},
		{"the node refuses by itself", (*suite).nodeRefusesByItself},
		{"another controller takes over", (*suite).anotherControllerTakesOver},
		{"the API server is away", (*suite).apiServerIsAway},
		{"agents are alive", (*suite).agentsAreAlive},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newSuite(t, c)) })
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		t.Run("example "+folder, func(t *testing.T) { newSuite(t, c).exampleRuns(folder) })
	}
}

// The API server finds nothing to warn of in the policies' expressions.
func (s *suite) policiesAreSound() {
	var policies *admissionv1.ValidatingAdmissionPolicyList
	s.eventually("the policies to be checked", func() (err error) { // by the controller manager, some time after they are there
		policies, err = s.api.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(s.ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=metsuke"})
		if err != nil {
			return err
		}
		for _, p := range policies.Items {
			if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
				return fmt.Errorf("%s was not: %+v", p.Name, p.Status)
			}
		}
		return nil
	})
	if len(policies.Items) < 6 {
		s.t.Fatalf("there are %d policies", len(policies.Items))
	}
	for _, p := range policies.Items {
		if len(p.Status.TypeChecking.ExpressionWarnings) > 0 {
			s.t.Errorf("%s: %+v", p.Name, p.Status.TypeChecking.ExpressionWarnings)
		}
	}
}
