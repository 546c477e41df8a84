// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// On three nodes an upgrade of the DaemonSet goes round and back again while agents work on each: they are not touched, no record of
// theirs is lost, and what starts later starts with the version that is installed then.
func TestUpgrade(t *testing.T) {
	c := deployed(t, "metsuke-upgrade", "deploy", 2)
	ctx, cancel := context.WithTimeout(t.Context(), setUpLimit)
	defer cancel()
	buildNext(ctx, t)
	if out, err := c.Shell(ctx, repository, "kind load docker-image "+next+" --name "+c.Name); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := newSuite(t, c)
	s.apply(s.profile("setpriority"))
	s.rolledOut(1)

	s.busyEverywhere()
	agents := s.pods("busy", 2, corev1.PodRunning)
	first := s.startsWith("first")
	was := s.sh("kubectl -n " + system + " get daemonset/metsuke-node -o jsonpath='{.spec.template.spec.containers[0].image}'")
	if first == "next" || was == next {
		t.Fatalf("version %s, image %s: nothing to upgrade", first, was)
	}

	s.rollTo(next)
	s.untouched(agents)
	if got := s.startsWith("second"); got != "next" {
		t.Errorf("after the upgrade pods start with %q", got)
	}
	s.apply(s.profile("setpriority, setsid"))
	s.rolledOut(2)

	s.rollTo(was)
	s.untouched(agents)
	if got := s.startsWith("third"); got != first {
		t.Errorf("after the rollback pods start with %q, want %q", got, first)
	}
	t.Run("a node loses its label", func(t *testing.T) { newSuite(t, c).nodeLosesItsLabel() })
}

// busyEverywhere has an agent on each worker that makes audited calls all the time.
func (s *suite) busyEverywhere() {
	s.t.Helper()
	busy := shell("main", "while :; do cat /etc/hostname >/dev/null; renice -n 5 -p 1 2>/dev/null; done")
	busy.Resources = resources("100m", "64Mi")
	selector, pods := template("busy", spec(busy))
	_, err := s.api.AppsV1().DaemonSets(s.namespace).Create(s.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "busy"}, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pods},
	}, metav1.CreateOptions{})
	s.must(err)
}

// rollTo puts the image into the DaemonSet and the controller, and waits until every pod of both runs it and every node is ready.
func (s *suite) rollTo(image string) {
	s.t.Helper()
	s.sh(fmt.Sprintf(`set -e
		kubectl -n %[1]s set image daemonset/metsuke-node deployment/metsuke-controller '*=%[2]s'
		kubectl -n %[1]s rollout status daemonset/metsuke-node --timeout=5m
		kubectl -n %[1]s rollout status deployment/metsuke-controller --timeout=5m
		kubectl wait node --all --for=jsonpath='{.metadata.labels.handler\.metsuke\.dev/%[3]s}'=ready --timeout=5m`, system, image, runtimeClass))
}

// startsWith runs a pod on each worker, and returns the version of Metsuke in their receipts, which has to be the same.
func (s *suite) startsWith(name string) (version string) {
	s.t.Helper()
	for _, n := range s.Nodes[1:] {
		pod := s.run(name+"-on-"+n.Name, onNode(n))
		s.supervised(pod, "main")
		got := fmt.Sprint(s.events(pod, "main")[0].Fields["version"])
		if version != "" && got != version {
			s.t.Errorf("pods start with %s and %s", version, got)
		}
		version = got
	}
	return version
}

// untouched checks that pods run in the containers that they ran in, are still held, and that their streams have gone on without loss.
func (s *suite) untouched(pods []corev1.Pod) {
	s.t.Helper()
	for i := range pods {
		before := &pods[i]
		now := s.ready(before.Name)
		if diff := cmp.Diff(before.Status.ContainerStatuses, now.Status.ContainerStatuses); diff != "" {
			s.t.Errorf("pod %s (-before +now):\n%s", before.Name, diff)
		}
		seen := len(s.events(now, "main"))
		if out := s.exec(now, "main", "workload", "syscall", "bpf"); out != "bpf: EPERM" {
			s.t.Errorf("exec in pod %s: %q", before.Name, out)
		}
		s.eventually("the stream of pod "+before.Name+" is to go on", func() error {
			if n := len(s.events(now, "main")); n <= seen {
				return fmt.Errorf("%d records, and %d before", n, seen)
			}
			return nil
		})
		starts, losses := 0, 0
		for _, e := range s.events(now, "main") {
			switch e.Kind {
			case "start":
				starts++
			case "loss":
				losses++
			}
		}
		if starts != 1 || losses != 0 {
			s.t.Errorf("pod %s: %d receipts and %d losses in its stream", before.Name, starts, losses)
		}
	}
}
