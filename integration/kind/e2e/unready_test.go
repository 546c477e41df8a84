// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/integration/kind"
)

// doctorPatience is how long it may take until a node's label says what is true of it: its doctor looks every five minutes or so, and its agent
// tells of that within twenty seconds.
const doctorPatience = 10 * time.Minute

// runcShim is the delegate on each node.
const runcShim = "/usr/local/bin/containerd-shim-runc-v2"

// A node that loses its delegate loses its label: pods go to others, or wait if they cannot, and what runs there goes on. When the delegate is
// back, the label is, and who has waited runs.
func (s *suite) nodeLosesItsLabel() {
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(s.t.Context(), 3*doctorPatience)
	defer cancel()
	ill, well := s.Nodes[1], s.Nodes[2]
	agent := *s.run("agent", onNode(ill))
	_, err := ill.Exec(s.ctx, "mv", runcShim, runcShim+".away")
	s.must(err)
	away := true
	mend := func() {
		if away {
			_, err := ill.Exec(context.WithoutCancel(s.ctx), "mv", runcShim+".away", runcShim)
			s.must(err)
			away = false
		}
	}
	defer mend()

	s.labelled(ill, false)
	s.labelled(well, true)
	reason := s.sh("kubectl get agentnode " + ill.Name + " -o jsonpath='{.status.handlers[0].reason}'")
	if !strings.Contains(reason, "delegate") || !strings.Contains(reason, runcShim) {
		s.t.Errorf("of %s it is said %q", ill.Name, reason)
	}
	waiting := s.waits(ill)
	for _, pod := range s.spread(4) {
		if pod.Spec.NodeName != well.Name {
			s.t.Errorf("pod %s is on %s", pod.Name, pod.Spec.NodeName)
		}
	}
	s.untouched([]corev1.Pod{agent})

	mend()
	s.labelled(ill, true)
	s.supervised(s.ready(waiting), "main")
	s.untouched([]corev1.Pod{agent})
}

// onNode is the spec of a pod under Metsuke that insists on a node.
func onNode(n *kind.Node) corev1.PodSpec {
	on := spec(idle("main"))
	on.NodeSelector = map[string]string{corev1.LabelHostname: n.Name}
	return on
}

// labelled waits until a node has the label of the handler, or has it not.
func (s *suite) labelled(n *kind.Node, ready bool) {
	s.t.Helper()
	of := *s
	var cancel context.CancelFunc
	of.ctx, cancel = context.WithTimeout(s.ctx, doctorPatience)
	defer cancel()
	of.eventually(fmt.Sprintf("label of %s (%t)", n.Name, ready), func() error {
		node, err := s.api.CoreV1().Nodes().Get(of.ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if label := node.Labels["handler.metsuke.dev/"+runtimeClass]; (label == "ready") != ready {
			return fmt.Errorf("it is %q", label)
		}
		return nil
	})
}

// waits creates a pod that insists on a node which is not ready for it, and returns its name when the scheduler has said so. The scheduler may
// learn of a label later than we do; what it has placed before is taken back.
func (s *suite) waits(n *kind.Node) (name string) {
	s.t.Helper()
	pods := s.api.CoreV1().Pods(s.namespace)
	s.eventually("the pod is to wait", func() error {
		if name == "" {
			name = s.create("waits-"+fmt.Sprint(time.Now().UnixNano()), onNode(n), nil).Name
		}
		pod, err := pods.Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.Spec.NodeName != "" {
			name = ""
			return errors.Join(errors.New("it is placed"), pods.Delete(s.ctx, pod.Name, metav1.DeleteOptions{}))
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				return nil
			}
		}
		return fmt.Errorf("it is %s %v", pod.Status.Phase, pod.Status.Conditions)
	})
	return name
}

// spread runs so many pods wherever they can.
func (s *suite) spread(n int32) []corev1.Pod {
	s.t.Helper()
	selector, pods := template("spread", spec(idle("main")))
	_, err := s.api.AppsV1().Deployments(s.namespace).Create(s.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "spread"}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: selector, Template: pods},
	}, metav1.CreateOptions{})
	s.must(err)
	return s.pods("spread", int(n), corev1.PodRunning)
}
