// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The chart in Helm's hands, by the guide's commands for it, while an agent works: it is not touched by an upgrade and the way back, what
// starts later starts with the version that is installed then, and in the end the node is as it was.
func TestHelm(t *testing.T) {
	sections := map[string][]step{}
	for _, s := range commands(t, true) {
		sections[s.section] = append(sections[s.section], s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*setUpLimit)
	defer cancel()
	bare, files := forGuide(ctx, t, "helm") // isBare takes what has our name for ours
	if out, err := bare.Shell(ctx, repository, fmt.Sprintf("kind load docker-image %s %s --name %s", image, next, bare.Name)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	section := func(name string) []step {
		t.Helper()
		if len(sections[name]) == 0 {
			t.Fatalf("the guide has no commands under %q", name)
		}
		return sections[name]
	}
	follow(ctx, t, bare, section("Install with Helm"))

	c := &cluster{Cluster: bare}
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	s := newSuite(t, c)
	s.ctx = ctx // three rollouts, each of which may take minutes
	s.apply(s.profile("setpriority"))
	s.rolledOut(1)
	s.busyEverywhere()
	agents := s.pods("busy", 1, corev1.PodRunning)
	first := s.startsUnderHelm("first")

	follow(ctx, t, bare, section("Upgrade with Helm"))
	s.untouched(agents)
	if got := s.startsUnderHelm("second"); got != "next" || got == first {
		t.Errorf("after the upgrade pods start with %q, before with %q", got, first)
	}
	// What was set at the installation holds.
	s.sh("kubectl -n " + system + " get networkpolicies metsuke-node metsuke-controller")

	follow(ctx, t, bare, section("Back with Helm"))
	s.untouched(agents)
	if got := s.startsUnderHelm("third"); got != first {
		t.Errorf("after the rollback pods start with %q, want %q", got, first)
	}

	// The RuntimeClass goes first. The node waits for the pods that run.
	end := section("Uninstall with Helm")
	follow(ctx, t, bare, end[:1])
	s.untouched(agents)
	classes, err := c.api.NodeV1().RuntimeClasses().List(ctx, metav1.ListOptions{})
	s.must(err)
	if len(classes.Items) > 0 {
		t.Errorf("something could start: %v", classes.Items)
	}
	s.sh("kubectl -n " + s.namespace + " delete daemonsets,pods --all --timeout=5m")
	follow(ctx, t, bare, end[1:])
	isBare(ctx, t, bare, files)
}

// startsUnderHelm runs a pod, and returns the version of Metsuke in its receipt.
func (s *suite) startsUnderHelm(name string) string {
	s.t.Helper()
	pod := s.run(name, spec(idle("main")))
	s.supervised(pod, "main")
	return fmt.Sprint(s.events(pod, "main")[0].Fields["version"])
}
