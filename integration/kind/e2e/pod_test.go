// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metsuke.dev/metsuke/integration/stand"
)

// A pod's life in its stream: receipt, the workload's execve, what it is denied, its end.
func TestPodIsHeldAndRecorded(t *testing.T) {
	s := newSuite(t, shared)
	config := spec(shell("agent", "cat /proc/self/status; unshare -m true; exit 7"))
	config.RestartPolicy = corev1.RestartPolicyNever
	s.create("agent", config, nil)
	pod := s.until("agent", "end", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	if ended := pod.Status.ContainerStatuses[0].State.Terminated; ended == nil || ended.ExitCode != 7 {
		t.Errorf("the container's end: %+v", pod.Status.ContainerStatuses[0].State)
	}
	log, err := s.api.CoreV1().Pods(s.namespace).GetLogs("agent", &corev1.PodLogOptions{}).DoRaw(s.ctx)
	s.must(err)
	if !strings.Contains(string(log), "Seccomp:\t2") || !strings.Contains(string(log), "NoNewPrivs:\t1") {
		t.Errorf("the pod's log:\n%s", log)
	}
	s.supervised(pod, "agent")
	events := s.events(pod, "agent")
	if !slices.ContainsFunc(events, func(e stand.Event) bool { return e.Verdict == "denied" && e.Syscall == "unshare" }) {
		t.Errorf("no record of the denied unshare")
	}
	if last := stand.Last(events); last.Kind != "exit" {
		t.Errorf("the last record: %s", last.Raw)
	}
}

// Each container of a pod is held: init containers, one that restarts (a sidecar), and one that was added later (ephemeral).
func TestEveryContainer(t *testing.T) {
	s := newSuite(t, shared)
	always := corev1.ContainerRestartPolicyAlways
	sidecar := idle("sidecar")
	sidecar.RestartPolicy = &always
	config := spec(idle("main"))
	config.InitContainers = []corev1.Container{shell("first", "echo first"), sidecar, shell("second", "echo second")}
	pod := s.run("pod", config)
	for _, container := range []string{"first", "sidecar", "second", "main"} {
		s.supervised(pod, container)
	}

	debug := idle("debug")
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: debug.Name, Image: debug.Image, Command: debug.Command},
		TargetContainerName:      "main",
	}}
	_, err := s.api.CoreV1().Pods(s.namespace).UpdateEphemeralContainers(s.ctx, pod.Name, pod, metav1.UpdateOptions{})
	s.must(err)
	pod = s.until("pod", "have its ephemeral container", func(pod *corev1.Pod) bool {
		return len(pod.Status.EphemeralContainerStatuses) == 1 && pod.Status.EphemeralContainerStatuses[0].State.Running != nil
	})
	s.supervised(pod, "debug")
	if out := s.exec(pod, "debug", "grep", "Seccomp:", "/proc/self/status"); out != "Seccomp:\t2" {
		t.Errorf("in the ephemeral container: %q", out)
	}
}

func TestExec(t *testing.T) {
	s := newSuite(t, shared)
	pod := s.run("pod", spec(idle("main")))
	if out := s.exec(pod, "main", "sh", "-c", "echo $((6 * 7)); workload syscall bpf"); out != "42\nbpf: EPERM" {
		t.Errorf("exec: %q", out)
	}
	denied := func(e stand.Event) bool { return e.Syscall == "bpf" && e.Verdict == "denied" && e.Exec != "" }
	if !slices.ContainsFunc(s.events(pod, "main"), denied) {
		t.Error("no record of what the exec session was denied")
	}
}

// Probes of both kinds decide, and those that execute are held as any exec is.
func TestProbes(t *testing.T) {
	s := newSuite(t, shared)
	web := corev1.Container{Name: "web", Image: stand.ImageBusybox, Command: []string{"/usr/sbin/nginx", "80"}}
	web.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(80)}}}
	waiting := idle("waiting")
	waiting.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/tmp/go"}}}}
	s.create("pod", spec(web, waiting), nil)
	pod := s.until("pod", "have one container ready", func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == "web" && c.Ready })
	})
	if slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == "waiting" && c.Ready }) {
		t.Error("a container is ready whose probe fails")
	}
	s.exec(pod, "waiting", "touch", "/tmp/go")
	pod = s.ready("pod")
	probe := func(e stand.Event) bool {
		return e.Syscall == "execve" && e.Exec != "" && strings.Contains(e.Raw, "/tmp/go")
	}
	if !slices.ContainsFunc(s.events(pod, "waiting"), probe) {
		t.Error("no record of the probe")
	}
}

// A resize in place reaches the kernel's limits, and the container goes on.
func TestResize(t *testing.T) {
	s := newSuite(t, shared)
	container := idle("main")
	container.Resources = resources("100m", "64Mi")
	pod := s.run("pod", spec(container))
	started := pod.Status.ContainerStatuses[0].State.Running.StartedAt
	for _, want := range []struct{ cpu, memory string }{{"200m", "128Mi"}, {"50m", "96Mi"}} {
		pod.Spec.Containers[0].Resources = resources(want.cpu, want.memory)
		_, err := s.api.CoreV1().Pods(s.namespace).UpdateResize(s.ctx, pod.Name, pod, metav1.UpdateOptions{})
		s.must(err)
		memory, cpu := resource.MustParse(want.memory), resource.MustParse(want.cpu)
		s.eventually("limits in the container", func() error {
			got, err := s.tryExec(pod, "main", "sh", "-c", limitsScript)
			if err != nil {
				return err
			}
			if words := fmt.Sprintf("%d %d", memory.Value(), cpu.MilliValue()*100); got != words {
				return fmt.Errorf("%s, want %s", got, words)
			}
			return nil
		})
		pod = s.until("pod", "report its new limits", func(pod *corev1.Pod) bool {
			status := pod.Status.ContainerStatuses[0]
			return status.Resources != nil && status.Resources.Limits.Memory().Equal(memory) && status.Resources.Limits.Cpu().Equal(cpu)
		})
	}
	if status := pod.Status.ContainerStatuses[0]; status.RestartCount != 0 || !status.State.Running.StartedAt.Equal(&started) {
		t.Errorf("the container was restarted: %+v", status)
	}
}

// limitsScript prints memory in bytes and the CPU quota in microseconds of a period of 100 ms, on cgroup v2 or v1.
const limitsScript = `cd /sys/fs/cgroup; if [ -e memory.max ]; then echo $(cat memory.max) $(cut -d' ' -f1 cpu.max)
else echo $(cat memory/memory.limit_in_bytes) $(cat cpu/cpu.cfs_quota_us); fi`

func resources(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// A pod that asks for a profile which its namespace may not choose never runs, and its event says why.
func TestRefusal(t *testing.T) {
	s := newSuite(t, shared)
	pod := s.create("pod", spec(idle("main")), map[string]string{"metsuke.dev/profile": "passthrough"})
	s.eventually("an event that says why", func() error {
		events, err := s.api.CoreV1().Events(s.namespace).List(s.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod.Name})
		if err != nil {
			return err
		}
		var messages []string
		for _, e := range events.Items {
			if strings.Contains(e.Message, "metsuke.dev/profile") && strings.Contains(e.Message, "passthrough") && e.Type == corev1.EventTypeWarning {
				return nil
			}
			messages = append(messages, e.Message)
		}
		return fmt.Errorf("events:\n%s", strings.Join(messages, "\n"))
	})
	pod, err := s.api.CoreV1().Pods(s.namespace).Get(s.ctx, pod.Name, metav1.GetOptions{})
	s.must(err)
	for _, status := range pod.Status.ContainerStatuses {
		if status.ContainerID != "" {
			t.Errorf("a container was made: %+v", status)
		}
	}
}
