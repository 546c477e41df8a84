// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// template is that of a workload's pods, with their label.
func template(name string, spec corev1.PodSpec) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": name}
	return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}
}

// pods waits until a workload has so many pods in the phase, and checks that each is supervised.
func (s *suite) pods(app string, n int, phase corev1.PodPhase) []corev1.Pod {
	s.t.Helper()
	var in []corev1.Pod
	s.eventually("pods of "+app, func() error {
		list, err := s.api.CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		in = nil
		for _, pod := range list.Items {
			if pod.Status.Phase == phase {
				in = append(in, pod)
			}
		}
		if len(in) < n {
			return fmt.Errorf("%d of %d are %s", len(in), n, phase)
		}
		return nil
	})
	for i := range in {
		s.supervised(&in[i], "main")
	}
	return in
}

// Every kind of workload runs under Metsuke by its pod template alone.
func TestWorkloadKinds(t *testing.T) {
	s := newSuite(t, shared)
	two, created := int32(2), metav1.CreateOptions{}
	selector, pods := template("deployment", spec(idle("main")))
	_, err := s.api.AppsV1().Deployments(s.namespace).Create(s.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "deployment"}, Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: selector, Template: pods},
	}, created)
	s.must(err)
	selector, pods = template("statefulset", spec(idle("main")))
	_, err = s.api.AppsV1().StatefulSets(s.namespace).Create(s.ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "statefulset"}, Spec: appsv1.StatefulSetSpec{Replicas: &two, Selector: selector, Template: pods},
	}, created)
	s.must(err)
	selector, pods = template("daemonset", spec(idle("main")))
	_, err = s.api.AppsV1().DaemonSets(s.namespace).Create(s.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "daemonset"}, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pods},
	}, created)
	s.must(err)
	once := spec(shell("main", "echo done"))
	once.RestartPolicy = corev1.RestartPolicyNever
	_, pods = template("job", once)
	_, err = s.api.BatchV1().Jobs(s.namespace).Create(s.ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: batchv1.JobSpec{Completions: &two, Parallelism: &two, Template: pods},
	}, created)
	s.must(err)
	_, pods = template("cronjob", once)
	_, err = s.api.BatchV1().CronJobs(s.namespace).Create(s.ctx, &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "cronjob"},
		Spec:       batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: pods}}},
	}, created)
	s.must(err)

	s.pods("deployment", 2, corev1.PodRunning)
	s.pods("statefulset", 2, corev1.PodRunning)
	s.pods("daemonset", 1, corev1.PodRunning)
	s.pods("job", 2, corev1.PodSucceeded)
	s.pods("cronjob", 1, corev1.PodSucceeded)
}
