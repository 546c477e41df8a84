// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// withDoor is the kustomization of Metsuke with the door for readers.
const withDoor = "integration/kind/e2e/testdata/readers"

// beyondMinute is longer than the API server lets any request last but those that it knows to run long.
const beyondMinute = 70 * time.Second

// The door for readers behind a real API server: what docs/adr/0012-the-door-for-readers.md promises of its aggregator, its discovery and its
// minute. Each test's namespace is deleted while the door is open, which is a promise too. The cluster is this test's own, and the API is
// taken away at its end all the same.
func TestReaders(t *testing.T) {
	c := deployed(t, "metsuke-readers", withDoor, 0)
	t.Cleanup(func() { c.shut(t) })
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"the API server reaches the door", (*suite).doorIsReached},
		{"roles decide", (*suite).rolesDecide},
		{"a stream is followed", (*suite).streamIsFollowed},
		{"doors restart", (*suite).doorsRestart},
		{"an agent restarts", (*suite).agentRestarts},
	} {
		passed := t.Run(test.name, func(t *testing.T) {
			s := newSuite(t, c)
			c.guard(t)
			test.run(s)
		})
		if !passed {
			return // the door is shut
		}
	}
}

// The API server finds the door, tells of the API, and knows it by a certificate of each replica.
func (s *suite) doorIsReached() {
	s.reached()
	s.eventually("the API's resources", func() error {
		out, err := s.Shell(s.ctx, repository, "kubectl api-resources --api-group=reader.metsuke.dev --no-headers")
		if err == nil && (!strings.Contains(out, "agentpods") || !strings.Contains(out, "doctorreports")) {
			err = fmt.Errorf("they are %q", out)
		}
		return err
	})
	found, err := s.apiService(s.ctx)
	s.must(err)
	if n := len(found.certificates()); n < 2 {
		s.t.Errorf("two doors listen, and are known by %d certificates", n)
	}
}

// agentPod is what readers see of a pod.
type agentPod struct {
	Kind, Node string
	Pod        struct{ Namespace, Name, UID string }
}

// granted gives a user the role of those who read in the test's namespace.
func (s *suite) granted(name string) rest.Interface {
	s.t.Helper()
	s.sh(fmt.Sprintf("kubectl -n %s create rolebinding %s --clusterrole metsuke-reader --user %[2]s", s.namespace, name))
	return s.user(name)
}

// Readers read what a role allows them, and nothing else; the door's log has what it was.
func (s *suite) rolesDecide() {
	pod := s.run("pod", spec(idle("main")))
	security := s.user("security")
	var one agentPod
	if err := s.ask(security, about(pod, ""), &one); !apierrors.IsForbidden(err) {
		s.t.Errorf("nobody has given any right: %v", err)
	}
	s.granted("security")
	s.eventually("an answer about the pod", func() error { return s.ask(security, about(pod, ""), &one) })
	if one.Kind != "AgentPod" || one.Node != pod.Spec.NodeName || one.Pod.Name != pod.Name || one.Pod.UID != string(pod.UID) {
		s.t.Errorf("of the pod %s: %+v", pod.UID, one)
	}
	pods := func(namespace, node string) string { return namespace + "/agentpods?node=" + node }
	var list struct{ Items []agentPod }
	s.must(s.ask(security, pods("/namespaces/"+s.namespace, pod.Spec.NodeName), &list))
	if len(list.Items) != 1 || list.Items[0].Pod.UID != string(pod.UID) {
		s.t.Errorf("the namespace has one pod: %+v", list)
	}
	err := s.ask(security, pods("/namespaces/"+s.namespace, "nowhere"), &list)
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "no agent of Metsuke's reports for node nowhere") {
		s.t.Errorf("of a node that is not there: %v", err)
	}
	doctor := "/doctorreports/" + pod.Spec.NodeName
	for _, question := range []string{pods("/namespaces/"+system, pod.Spec.NodeName), pods("", pod.Spec.NodeName), doctor} {
		var anything any
		if err := s.ask(security, question, &anything); !apierrors.IsForbidden(err) {
			s.t.Errorf("%s, which the role does not allow: %v", question, err)
		}
	}
	s.sh("kubectl create clusterrolebinding " + s.namespace + " --clusterrole metsuke-node-reader --user operator")
	operator := s.user("operator")
	var report struct {
		Kind   string
		Report map[string]any
	}
	s.eventually("the doctor's report", func() error { return s.ask(operator, doctor, &report) })
	if report.Kind != "DoctorReport" || len(report.Report) == 0 {
		s.t.Errorf("the doctor's report: %+v", report)
	}
	if err := s.ask(operator, about(pod, ""), &one); !apierrors.IsForbidden(err) {
		s.t.Errorf("who looks after nodes sees a pod: %v", err)
	}
	s.sh("kubectl -n " + system + " logs --selector " + controllerPods + " --tail=-1 | " +
		"grep -F 'a reader asks' | grep -F user=security | grep -F " + s.namespace)
}

// touch has the pod's container run something that its stream tells of.
func (s *suite) touch(pod *corev1.Pod, file string) {
	s.t.Helper()
	s.exec(pod, "main", "touch", file)
}

// A stream is followed for longer than the API server's minute, and no longer than its reader may.
func (s *suite) streamIsFollowed() {
	pod := s.run("pod", spec(idle("main")))
	security := s.granted("security")
	stream := s.follow(security, pod)
	s.touch(pod, "/tmp/early")
	stream.next(s, "/tmp/early")
	select {
	case <-time.After(beyondMinute):
	case <-s.ctx.Done():
	}
	s.touch(pod, "/tmp/late")
	stream.next(s, "/tmp/late")
	s.sh("kubectl -n " + s.namespace + " delete rolebinding security")
	stream.cut(s, "its reader may not read any more")
	s.eventually("the refusal", func() error {
		var one agentPod
		if err := s.ask(security, about(pod, ""), &one); !apierrors.IsForbidden(err) {
			return fmt.Errorf("the answer is %+v, %w", one, err)
		}
		return nil
	})
}

// answered waits until a reader is answered some times in a row, as each replica of the controller, and the agent, has to do.
func (s *suite) answered(user rest.Interface, pod *corev1.Pod) {
	s.t.Helper()
	s.eventually("answers", func() error {
		for range 10 {
			var one agentPod
			if err := s.ask(user, about(pod, ""), &one); err != nil {
				return err
			}
		}
		return nil
	})
}

// Doors have new keys when they start: the API server and the agent learn them, and what was followed through the old ones is cut.
func (s *suite) doorsRestart() {
	pod := s.run("pod", spec(idle("main")))
	security := s.granted("security")
	before, err := s.apiService(s.ctx)
	s.must(err)
	stream := s.follow(security, pod)
	s.sh("kubectl -n " + system + " delete pods --selector " + controllerPods)
	stream.cut(s, "its door is gone")
	s.sh("kubectl -n " + system + " rollout status deployment/metsuke-controller --timeout=5m")
	s.reached()
	s.answered(security, pod)
	after, err := s.apiService(s.ctx)
	s.must(err)
	fresh, old := after.certificates(), before.certificates()
	for c := range old {
		delete(fresh, c)
	}
	if len(fresh) < 2 {
		s.t.Errorf("two doors have started, and are known by %d new certificates", len(fresh))
	}
}

// An agent has a new key when it starts: the door learns it from the AgentNode, and what was followed is cut.
func (s *suite) agentRestarts() {
	pod := s.run("pod", spec(idle("main")))
	security := s.granted("security")
	certificate := func() string {
		return s.sh("kubectl get agentnode " + pod.Spec.NodeName + " -o jsonpath='{.status.endpoint.certificate}'")
	}
	before := certificate()
	stream := s.follow(security, pod)
	s.sh("kubectl -n " + system + " delete pods --selector " + agentPods)
	stream.cut(s, "its agent is gone")
	s.sh("kubectl -n " + system + " rollout status daemonset/metsuke-node --timeout=5m")
	s.eventually("the new agent's certificate", func() error {
		if now := certificate(); now == before || now == "" {
			return fmt.Errorf("it is %q", now)
		}
		return nil
	})
	s.answered(security, pod)
	stream = s.follow(security, pod)
	s.touch(pod, "/tmp/again")
	stream.next(s, "/tmp/again")
}
