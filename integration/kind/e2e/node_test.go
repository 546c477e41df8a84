// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A restart of the node's containerd, to which the API's server belongs too, does not touch running pods, and they stay supervised.
func TestContainerdRestarts(t *testing.T) {
	s := newSuite(t, shared)
	pod := s.run("pod", spec(idle("main")))
	before := s.events(pod, "main")
	s.must(s.node(pod).RestartContainerd(s.ctx))
	// The kubelet may be waiting to connect to it again, and refuses execs as long as that.
	s.eventually("exec after the restart", func() error {
		out, err := s.tryExec(pod, "main", "workload", "syscall", "bpf")
		if err == nil && out != "bpf: EPERM" {
			t.Errorf("exec after the restart: %q", out)
		}
		return err
	})
	if after := s.events(pod, "main"); len(after) <= len(before) || after[0].Raw != before[0].Raw {
		t.Errorf("%d records before, %d after", len(before), len(after))
	}
	pod = s.ready("pod")
	if status := pod.Status.ContainerStatuses[0]; status.RestartCount != 0 {
		t.Errorf("the container was restarted: %+v", status)
	}
	s.run("later", spec(idle("main")))
}

// When the node has restarted, its pods run again, supervised.
func TestNodeRestarts(t *testing.T) {
	s := newSuite(t, shared)
	pod := s.run("pod", spec(idle("main")))
	s.must(s.node(pod).Restart(s.ctx))
	pod = s.until("pod", "run again", func(pod *corev1.Pod) bool {
		status := pod.Status.ContainerStatuses
		return len(status) == 1 && status[0].RestartCount > 0 && status[0].Ready
	})
	starts := 0
	for _, e := range s.events(pod, "main") {
		if e.Kind == "start" {
			starts++
		}
	}
	if starts != 2 {
		t.Errorf("%d receipts in the stream, want 2", starts)
	}
	if out := s.exec(pod, "main", "workload", "syscall", "bpf"); out != "bpf: EPERM" {
		t.Errorf("exec after the restart: %q", out)
	}
	// What tasks had in /var/lib when their node went down containerd removes at its next start, not at the one on the way up, when
	// its directory in /run is empty (LoadExistingShims in core/runtime/v2/shim_load.go of 2.4).
	s.must(s.node(pod).RestartContainerd(s.ctx))
}

// On three nodes: pods of a DaemonSet run on each worker, supervised there, and reach each other across nodes.
func TestThreeNodes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), setUpLimit)
	defer cancel()
	three, err := newCluster(ctx, "metsuke-three", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := three.Close(); err != nil {
			t.Error(err)
		}
	})
	s := newSuite(t, three)
	web := corev1.Container{Name: "main", Image: idle("").Image, Command: []string{"/usr/sbin/nginx", "80"}}
	selector, pods := template("daemonset", spec(web))
	_, err = s.api.AppsV1().DaemonSets(s.namespace).Create(s.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "daemonset"}, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pods},
	}, metav1.CreateOptions{})
	s.must(err)
	on := map[string]bool{}
	running := s.pods("daemonset", 2, corev1.PodRunning)
	for _, pod := range running {
		on[pod.Spec.NodeName] = true
		for _, other := range running {
			s.eventually("the web server of pod "+other.Name, func() error { // it runs, and may not listen yet
				_, err := s.tryExec(&pod, "main", "wget", "-q", "-O", "-", fmt.Sprintf("http://%s/", other.Status.PodIP))
				return err
			})
		}
	}
	if len(on) != 2 {
		t.Errorf("the pods are on %v, want both workers", on)
	}
}

// The check that ends every test sees what it is for.
func TestLeaksAreSeen(t *testing.T) {
	s := newSuite(t, shared)
	n, id := s.Nodes[0], strings.Repeat("0123456789abcdef", 4)
	planted := []string{"/sys/fs/cgroup/*/" + id, "/run/containerd/" + id, "/run/netns/planted", "/run/containerd/s/planted"}
	_, err := n.Script(s.ctx, `
		if [ -e /sys/fs/cgroup/cgroup.procs ]; then mkdir /sys/fs/cgroup/`+id+`; else mkdir /sys/fs/cgroup/cpu/`+id+`; fi
		mkdir /run/containerd/`+id+`; touch /run/netns/planted
		cp --archive "$(find /run/containerd/s -type s | head -1)" /run/containerd/s/planted`)
	s.must(err)
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	left, err := n.Leaks(ctx)
	if err != nil || len(left) != len(planted) {
		t.Errorf("found %q, %v; planted are %q", left, err, planted)
	}
	_, err = n.Script(s.ctx, "rmdir /run/containerd/"+id+" $(find /sys/fs/cgroup -name "+id+"); rm /run/netns/planted /run/containerd/s/planted")
	s.must(err)
}
