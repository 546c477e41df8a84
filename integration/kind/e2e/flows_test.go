// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// as is a client with an agent's token, bound to a pod or to nothing.
func (s *suite) as(bound *authenticationv1.BoundObjectReference) dynamic.Interface {
	s.t.Helper()
	token, err := s.api.CoreV1().ServiceAccounts(system).CreateToken(s.ctx, "metsuke-node",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
	s.must(err)
	config := rest.AnonymousClientConfig(s.config)
	config.BearerToken = token.Status.Token
	client, err := dynamic.NewForConfig(config)
	s.must(err)
	return client
}

// An agent's token writes the AgentNode of the node that it is bound to: no other's, none without a node, and nothing else at all.
func (s *suite) agentsWriteTheirOwnNode() {
	pods, err := s.api.CoreV1().Pods(system).List(s.ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=metsuke-node"})
	s.must(err)
	agent := pods.Items[0]
	bound := s.as(&authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: agent.Name, UID: agent.UID})
	unbound := s.as(nil)

	ours := schema.GroupVersion{Group: "metsuke.dev", Version: "v1alpha1"}
	nodes := ours.WithResource("agentnodes")
	write := func(client dynamic.Interface, node string) error {
		patch := fmt.Appendf(nil, `[{"op": "replace", "path": "/status/heartbeat", "value": %q}]`, time.Now().UTC().Format(time.RFC3339))
		_, err := client.Resource(nodes).Patch(s.ctx, node, types.JSONPatchType, patch, metav1.PatchOptions{}, "status")
		return err
	}
	create := func(client dynamic.Interface, node string) error {
		_, err := client.Resource(nodes).Create(s.ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": ours.String(), "kind": "AgentNode", "metadata": map[string]any{"name": node},
		}}, metav1.CreateOptions{})
		return err
	}
	s.must(write(bound, agent.Spec.NodeName))
	for what, err := range map[string]error{
		"the node's own without a node": write(unbound, agent.Spec.NodeName),
		"another's":                     create(bound, "another"),
		"another's without a node":      create(unbound, "another"),
	} {
		if err == nil || !strings.Contains(err.Error(), "an agent may write the AgentNode of its own node only") {
			s.t.Errorf("%s: %v", what, err)
		}
	}
	for _, resource := range []schema.GroupVersionResource{
		nodes, ours.WithResource("agentprofiles"), {Version: "v1", Resource: "nodes"}, {Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "secrets"},
	} {
		if _, err := bound.Resource(resource).List(s.ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			s.t.Errorf("an agent lists %s: %v", resource.Resource, err)
		}
	}
}

// A pod of the RuntimeClass goes to a node that is ready for it, and its overhead counts.
func (s *suite) podsGoWhereTheyCanRun() {
	pod := s.run("pod", spec(idle("main")))
	s.supervised(pod, "main")
	if pod.Spec.NodeSelector["handler.metsuke.dev/"+runtimeClass] != "ready" || pod.Spec.Overhead.Memory().IsZero() {
		s.t.Errorf("node selector %v, overhead %v", pod.Spec.NodeSelector, pod.Spec.Overhead)
	}
}

// A profile reaches new pods, with the digest that its status names; a new version does, and what runs keeps its own; an invalid one
// changes nothing.
func (s *suite) profileReachesNewPods() {
	s.apply(s.profile("setpriority"))
	first := s.rolledOut(1)
	early := s.run("early", spec(idle("main")))
	s.apply(s.profile("setpriority, setsid"))
	second := s.rolledOut(2)
	if first == second {
		s.t.Errorf("two versions have the digest %s", first)
	}
	s.sh("kubectl patch agentprofile " + s.namespace + ` --type=merge --patch='{"spec":{"extends":["absent"]}}'
		kubectl wait agentprofile/` + s.namespace + " --for=condition=Accepted=false --timeout=5m")
	for pod, digest := range map[*corev1.Pod]string{early: first, s.run("late", spec(idle("main"))): second} {
		if name, got := s.under(pod, "main"); name != s.namespace || got != digest {
			s.t.Errorf("pod %s runs under %s %s, want %s", pod.Name, name, got, digest)
		}
	}
}

// A namespace has one binding: the second is refused when it is applied, and the first stays.
func (s *suite) secondBindingIsRefused() {
	s.apply(s.profile("setpriority"))
	out, err := s.Shell(s.ctx, repository, "kubectl get profilebinding "+s.namespace+" -o yaml | sed 's/^  name: .*/  name: second/; /uid:/d; /resourceVersion:/d' | kubectl create -f -")
	if err == nil || !strings.Contains(out, "namespace "+s.namespace+" already has the binding "+s.namespace) {
		s.t.Errorf("%v\n%s", err, out)
	}
}

// Without the admission policy, what a namespace may not choose is refused on the node, and the pod's events say why.
func (s *suite) nodeRefusesByItself() {
	s.apply(s.profile("setpriority"))
	s.rolledOut(1)
	s.sh("kubectl delete validatingadmissionpolicybinding metsuke-pods")
	defer s.sh("kubectl apply --server-side -k deploy")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "refused", Annotations: map[string]string{"metsuke.dev/profile": "passthrough"}}, Spec: spec(idle("main"))}
	s.eventually("the policy's end", func() error {
		_, err := s.api.CoreV1().Pods(s.namespace).Create(s.ctx, pod, metav1.CreateOptions{})
		return err
	})
	s.eventually("an event that says why", func() error {
		events, err := s.api.CoreV1().Events(s.namespace).List(s.ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, `asks for "passthrough"`) && strings.Contains(e.Message, "binding "+s.namespace) &&
				strings.HasSuffix(e.Message, "allows "+s.namespace) {
				return nil
			}
		}
		return fmt.Errorf("there are %+v", events.Items)
	})
}

// When the elected controller is gone, another one takes over.
func (s *suite) anotherControllerTakesOver() {
	leader := func() string {
		return s.sh("kubectl -n " + system + " get lease metsuke-controller -o jsonpath='{.spec.holderIdentity}'")
	}
	gone := leader()
	s.sh("kubectl -n " + system + " delete pod " + gone)
	s.apply(s.profile("setpriority"))
	s.rolledOut(1)
	if now := leader(); now == gone || now == "" {
		s.t.Errorf("%q is the leader, after %q", now, gone)
	}
}

// Without the API server the node keeps what it has: a container that ends is started again, under its profile.
func (s *suite) apiServerIsAway() {
	s.apply(s.profile("setpriority"))
	s.rolledOut(1)
	pod := s.run("pod", spec(idle("main")))
	n := s.node(pod)
	before, err := n.Exec(s.ctx, "cat", mirrored)
	s.must(err)
	const ask = "kubectl --kubeconfig=/etc/kubernetes/admin.conf --request-timeout=2s get --raw=/readyz"
	_, err = n.Script(s.ctx, "mv /etc/kubernetes/manifests/kube-apiserver.yaml /root/; while "+ask+"; do sleep 0.2; done")
	defer func() {
		_, err := n.Script(s.ctx, "mv /root/kube-apiserver.yaml /etc/kubernetes/manifests/; until "+ask+"; do sleep 0.2; done")
		s.must(err)
		s.ready("pod")
		s.profileReachesNewPodsAgain()
	}()
	s.must(err)
	_, err = n.Script(s.ctx, "crictl stop $(crictl ps --quiet --name '^main$' --label io.kubernetes.pod.uid="+string(pod.UID)+")")
	s.must(err)
	s.eventually("the container's next start", func() error {
		starts := 0
		for _, e := range s.events(pod, "main") {
			if e.Kind == "start" && e.Profile == s.namespace {
				starts++
			}
		}
		if starts < 2 {
			return errors.New("it was started once")
		}
		return nil
	})
	if after, err := n.Exec(s.ctx, "cat", mirrored); err != nil || after != before {
		s.t.Errorf("%s has changed: %v\n%s", mirrored, err, after)
	}
}

// profileReachesNewPodsAgain is what has to work when the API server is back.
func (s *suite) profileReachesNewPodsAgain() {
	s.apply(s.profile("setpriority, setsid"))
	s.rolledOut(2)
}

// Agents say that they are alive, and the kubelet has started none of them again, though the API server was away.
func (s *suite) agentsAreAlive() {
	pods, err := s.api.CoreV1().Pods(system).List(s.ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=metsuke-node"})
	s.must(err)
	for _, pod := range pods.Items {
		if pod.Spec.Containers[0].LivenessProbe == nil || pod.Status.ContainerStatuses[0].RestartCount > 0 {
			s.t.Errorf("%s: %+v", pod.Name, pod.Status.ContainerStatuses)
		}
		answer, err := s.api.CoreV1().RESTClient().Get().Namespace(system).Resource("pods").Name(pod.Name + ":9464").SubResource("proxy").Suffix("healthz").DoRaw(s.ctx)
		if err != nil || string(answer) != "ok\n" {
			s.t.Errorf("%s: %q, %v", pod.Name, answer, err)
		}
	}
}
