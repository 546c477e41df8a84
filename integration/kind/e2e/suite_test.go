// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"metsuke.dev/metsuke/integration/kind"
	"metsuke.dev/metsuke/integration/stand"
)

const (
	limit    = 15 * time.Minute // bounds a test: generous, because time is never what is tested here
	patience = 3 * time.Minute  // how long after its pods things may be on their way out; what stays is a leak
	auditDir = "/var/log/metsuke/audit"
)

// suite is a namespace of a cluster for the length of one test. Its methods fail the test on any error.
type suite struct {
	*cluster
	t         *testing.T
	ctx       context.Context
	namespace string
}

// newSuite makes a namespace, and sees to it that the test leaves nothing behind on any node.
func newSuite(t *testing.T, c *cluster) *suite {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	s := &suite{cluster: c, t: t, ctx: ctx}
	made, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	s.must(err)
	s.namespace = made.Name
	s.eventually("the namespace's service account", func() error {
		_, err := c.api.CoreV1().ServiceAccounts(s.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	t.Cleanup(func() {
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithTimeout(context.Background(), limit) // the test's own may have ended
		defer cancel()
		if t.Failed() {
			s.describe()
		}
		s.delete()
		for _, n := range c.Nodes {
			ctx, cancel := context.WithTimeout(s.ctx, patience)
			defer cancel()
			left, err := n.Leaks(ctx)
			if err != nil {
				t.Error(err)
			}
			for _, leak := range left {
				t.Errorf("left behind on %s: %s", n.Name, leak)
			}
		}
	})
	return s
}

// delete deletes the namespace and waits until it is gone.
func (s *suite) delete() {
	namespaces := s.api.CoreV1().Namespaces()
	if err := namespaces.Delete(s.ctx, s.namespace, metav1.DeleteOptions{}); err != nil {
		s.t.Errorf("delete the test's namespace: %v", err)
		return
	}
	s.eventually("end of the namespace", func() error {
		_, err := namespaces.Get(s.ctx, s.namespace, metav1.GetOptions{})
		if err == nil {
			return errors.New("it is still there")
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// describe logs what a failing test left: its pods, their events, and the nodes' logs.
func (s *suite) describe() {
	if out, err := s.Kubectl(s.ctx, "describe", "pods", "--namespace", s.namespace); err == nil {
		s.t.Logf("pods:\n%s", out)
	}
	for _, n := range s.Nodes {
		if out, err := n.Exec(s.ctx, "journalctl", "--unit=containerd", "--lines=40", "--no-pager", "--output=cat"); err == nil {
			s.t.Logf("containerd's log on %s (end):\n%s", n.Name, out)
		}
	}
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// eventually waits until the condition is nil, and fails with its last error.
func (s *suite) eventually(what string, condition func() error) {
	s.t.Helper()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-s.ctx.Done():
			s.t.Fatalf("%s: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// shell is a container that runs a script in busybox's shell.
func shell(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: stand.ImageBusybox, Command: []string{"sh", "-c", script}}
}

// idle is a container that waits, and ends when it is told to.
func idle(name string) corev1.Container {
	return corev1.Container{Name: name, Image: stand.ImageBusybox, Command: []string{"workload", "pause"}}
}

// spec is that of a pod under Metsuke.
func spec(containers ...corev1.Container) corev1.PodSpec {
	class, grace := runtimeClass, int64(5)
	return corev1.PodSpec{RuntimeClassName: &class, Containers: containers, TerminationGracePeriodSeconds: &grace}
}

// create creates a pod.
func (s *suite) create(name string, spec corev1.PodSpec, annotations map[string]string) *corev1.Pod {
	s.t.Helper()
	pod, err := s.api.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Spec: spec,
	}, metav1.CreateOptions{})
	s.must(err)
	return pod
}

// run creates a pod and waits until it is ready.
func (s *suite) run(name string, spec corev1.PodSpec) *corev1.Pod {
	s.t.Helper()
	s.create(name, spec, nil)
	return s.ready(name)
}

// ready waits until the pod is ready.
func (s *suite) ready(name string) *corev1.Pod {
	s.t.Helper()
	return s.until(name, "be ready", func(pod *corev1.Pod) bool {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady {
				return condition.Status == corev1.ConditionTrue
			}
		}
		return false
	})
}

// until waits until the pod is as it is wanted.
func (s *suite) until(name, what string, is func(*corev1.Pod) bool) (pod *corev1.Pod) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("pod %s is to %s", name, what), func() (err error) {
		if pod, err = s.api.CoreV1().Pods(s.namespace).Get(s.ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !is(pod) {
			return fmt.Errorf("it is %s %v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
	return pod
}

// node is the node that a pod runs on.
func (s *suite) node(pod *corev1.Pod) *kind.Node {
	s.t.Helper()
	for _, n := range s.Nodes {
		if n.Name == pod.Spec.NodeName {
			return n
		}
	}
	s.t.Fatalf("pod %s is on no node: %q", pod.Name, pod.Spec.NodeName)
	return nil
}

// events reads the stream of one of a pod's containers, on its node.
func (s *suite) events(pod *corev1.Pod, container string) []stand.Event {
	s.t.Helper()
	dir := path.Join(auditDir, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID), container)
	events, err := stand.ReadStream(s.node(pod).Path(dir))
	s.must(err)
	return events
}

// supervised fails unless the container's stream begins with its receipt and has its workload's execve.
func (s *suite) supervised(pod *corev1.Pod, container string) {
	s.t.Helper()
	if events := s.events(pod, container); len(events) < 2 || events[0].Kind != "start" || events[1].Syscall != "execve" {
		s.t.Errorf("the stream of container %s of pod %s: %v", container, pod.Name, events)
	}
}

// exec runs a command in a container, as kubectl exec does; its exit status must be 0.
func (s *suite) exec(pod *corev1.Pod, container string, command ...string) string {
	s.t.Helper()
	out, err := s.tryExec(pod, container, command...)
	s.must(err)
	return out
}

// tryExec is exec where it may not work yet.
func (s *suite) tryExec(pod *corev1.Pod, container string, command ...string) (string, error) {
	s.t.Helper()
	request := s.api.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(s.config, "GET", request.URL().String())
	s.must(err)
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(s.ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return "", fmt.Errorf("%q: %w: %s", command, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}
