// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"metsuke.dev/metsuke/integration/stand"
)

const examples = repository + "/deploy/examples"

// folders are the examples: the namespace of each, and the profiles that the containers of its pods get.
var folders = map[string]struct {
	namespace string
	profiles  map[string]string // by container
}{
	"coding-agent":  {"coding-agents", map[string]string{"agent": "coding-agent"}},
	"browser-agent": {"browser-agents", map[string]string{"agent": "browser-agent", "browser": "browser"}},
	"notebook":      {"notebooks", map[string]string{"jupyter": "notebook"}},
	"training":      {"training", map[string]string{"node": "training"}},
	"agent-sandbox": {"sandboxes", map[string]string{"python": "agent-sandbox"}},
}

// Each example has a subtest of TestCluster.
func TestExamplesAreTried(t *testing.T) {
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, e := range entries {
		if _, known := folders[e.Name()]; known {
			tried++
		} else if e.IsDir() {
			t.Errorf("%s is an example that is not tried", e.Name())
		}
	}
	if tried != len(folders) {
		t.Errorf("%d examples are there, of %d", tried, len(folders))
	}
}

// An example is taken by the API server as it stands, its objects of others' kinds too. Its pods run under their profiles, with another
// image in the place of theirs: of others' kinds the pods that their controllers, which are not here, would make.
func (s *suite) exampleRuns(folder string) {
	s.t.Helper()
	s.definitions()
	example := folders[folder]
	of := *s
	of.namespace = example.namespace
	defer func() {
		var cancel context.CancelFunc
		of.ctx, cancel = context.WithTimeout(context.Background(), limit) // the test's own may have ended
		defer cancel()
		if s.t.Failed() {
			of.describe()
		}
		of.delete()
	}()
	s.sh("kubectl apply -f deploy/examples/" + folder + "/profile.yaml")
	profiles := slices.Sorted(maps.Values(example.profiles))
	s.sh("kubectl wait profilebinding/" + example.namespace + " agentprofile/" + strings.Join(profiles, " agentprofile/") + " --for=condition=RolledOut --timeout=5m")
	s.eventually("the namespace's service account", func() error {
		_, err := s.api.CoreV1().ServiceAccounts(example.namespace).Get(s.ctx, "default", metav1.GetOptions{})
		return err
	})
	pods := 0
	for _, object := range s.objects(folder) {
		pods += len(podTemplates(object.Object))
		s.applyExample(object)
	}
	if pods == 0 {
		s.t.Errorf("%s has no pod", folder)
	}
	for _, pod := range of.running(pods) {
		of.heldAs(&pod, example.profiles)
	}
}

// definitions makes the kinds of others known to the API server.
func (s *suite) definitions() {
	s.t.Helper()
	one, err := stand.Tool("crds", "agents.x-k8s.io_sandboxes.yaml")
	s.must(err)
	// On the server's side: in an annotation there is no room for them.
	s.sh("kubectl apply --server-side -f " + filepath.Dir(one) + " -f integration/crd/testdata")
	s.sh("kubectl wait crd --all --for=condition=Established --timeout=5m")
}

// running waits until so many pods of the namespace run.
func (s *suite) running(n int) (running []corev1.Pod) {
	s.t.Helper()
	s.eventually("the pods", func() error {
		list, err := s.api.CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		running = slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.Status.Phase != corev1.PodRunning })
		if len(running) != n {
			return fmt.Errorf("%d of %d run", len(running), n)
		}
		return nil
	})
	return running
}

// heldAs checks that a pod's containers are under these profiles, by their receipts, and denied what all of them deny.
func (s *suite) heldAs(pod *corev1.Pod, profiles map[string]string) {
	s.t.Helper()
	if len(pod.Spec.Containers) != len(profiles) {
		s.t.Errorf("pod %s has %d containers, want those of %v", pod.Name, len(pod.Spec.Containers), profiles)
	}
	for _, c := range pod.Spec.Containers {
		s.supervised(pod, c.Name)
		if got, _ := s.under(pod, c.Name); got != profiles[c.Name] || got == "" {
			s.t.Errorf("container %s of pod %s is under %q, want %q", c.Name, pod.Name, got, profiles[c.Name])
		}
		if out := s.exec(pod, c.Name, "workload", "syscall", "bpf"); out != "bpf: EPERM" {
			s.t.Errorf("in container %s of pod %s: %q", c.Name, pod.Name, out)
		}
	}
}

// objects are those of an example's files but for profile.yaml.
func (s *suite) objects(folder string) (all []*unstructured.Unstructured) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(examples, folder, "*.yaml"))
	s.must(err)
	for _, file := range files {
		if filepath.Base(file) == "profile.yaml" {
			continue
		}
		text, err := os.Open(file)
		s.must(err)
		decoder := yaml.NewYAMLOrJSONDecoder(text, 4096)
		for {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			s.must(err)
			all = append(all, object)
		}
		s.must(text.Close())
	}
	return all
}

// controlled are the groups of kinds whose controllers run in the cluster.
var controlled = []string{"", "apps", "batch"}

// applyExample applies an object of an example, after the API server has looked at it as it stands. Where the cluster makes pods of it,
// they get an image that is here; where it does not, such pods are made beside it.
func (s *suite) applyExample(object *unstructured.Unstructured) {
	s.t.Helper()
	text, err := object.MarshalJSON()
	s.must(err)
	s.sh("kubectl apply --dry-run=server -f - <<'EOF'\n" + string(text) + "\nEOF")
	templates := podTemplates(object.Object)
	made := slices.Contains(controlled, object.GroupVersionKind().Group)
	for i, template := range templates {
		pod := &unstructured.Unstructured{Object: template}
		if !made {
			pod = pod.DeepCopy()
		}
		s.withImageThatIsHere(pod.Object)
		if made {
			continue
		}
		pod.SetAPIVersion("v1")
		pod.SetKind("Pod")
		pod.SetNamespace(object.GetNamespace())
		pod.SetName(fmt.Sprintf("%s-%s-%d", strings.ToLower(object.GetKind()), object.GetName(), i))
		s.applyObject(pod.Object)
	}
	s.applyObject(object.Object)
}

func (s *suite) applyObject(object map[string]any) {
	s.t.Helper()
	text, err := json.Marshal(object)
	s.must(err)
	s.apply(string(text))
}

// withImageThatIsHere makes a pod's containers wait in an image that the node has. What they ask for they need not have, for the node is
// small; what they may have stays. There is nobody who provides volumes.
func (s *suite) withImageThatIsHere(template map[string]any) {
	s.t.Helper()
	spec, _, err := unstructured.NestedMap(template, "spec")
	s.must(err)
	containers, _, err := unstructured.NestedSlice(spec, "containers")
	s.must(err)
	for _, c := range containers {
		c, ok := c.(map[string]any)
		if !ok {
			s.t.Fatalf("no container: %v", c)
		}
		c["image"], c["command"] = stand.ImageBusybox, []any{"workload", "pause"}
		s.must(unstructured.SetNestedStringMap(c, map[string]string{"cpu": "10m", "memory": "16Mi"}, "resources", "requests"))
	}
	spec["containers"] = containers
	volumes, _, err := unstructured.NestedSlice(spec, "volumes")
	s.must(err)
	for i, v := range volumes {
		if v, ok := v.(map[string]any); ok && v["persistentVolumeClaim"] != nil {
			volumes[i] = map[string]any{"name": v["name"], "emptyDir": map[string]any{}}
		}
	}
	if len(volumes) > 0 {
		spec["volumes"] = volumes
	}
	template["spec"] = spec
}

// podTemplates are those in an object, which may be a pod itself: what has a spec with containers.
func podTemplates(in any) (found []map[string]any) {
	switch in := in.(type) {
	case map[string]any:
		if spec, ok := in["spec"].(map[string]any); ok && spec["containers"] != nil {
			return []map[string]any{in}
		}
		for _, key := range slices.Sorted(maps.Keys(in)) {
			found = append(found, podTemplates(in[key])...)
		}
	case []any:
		for _, entry := range in {
			found = append(found, podTemplates(entry)...)
		}
	}
	return found
}
