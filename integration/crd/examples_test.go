// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"metsuke.dev/metsuke/cluster/admission"
	"metsuke.dev/metsuke/profile"
)

// examples is where they are: a folder each, and beside the folders what the operators' guide follows.
const examples = "../../deploy/examples"

// example is one object of an example.
type example struct {
	folder, file     string
	apiVersion, kind string
	namespace        string
	text, json       []byte
	object           map[string]any
}

func exampleObjects(t *testing.T) (all []example) {
	t.Helper()
	var files []string
	for _, pattern := range []string{"/*.yaml", "/*/*.yaml"} {
		found, err := filepath.Glob(examples + pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		folder, err := filepath.Rel(examples, filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			e := example{folder: folder, file: filepath.Base(file), text: []byte(document)}
			if e.json, err = yaml.YAMLToJSONStrict(e.text); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := kjson.Unmarshal(e.json, &e.object); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			e.apiVersion, _ = e.object["apiVersion"].(string)
			e.kind, _ = e.object["kind"].(string)
			metadata, _ := e.object["metadata"].(map[string]any)
			e.namespace, _ = metadata["namespace"].(string)
			all = append(all, e)
		}
	}
	return all
}

// pods are the templates of the pods that come of an object.
func (e *example) pods() []map[string]any {
	if e.apiVersion == profile.APIVersion {
		return nil // a binding's containers are others
	}
	return podTemplates(e.object)
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

// foreignServers are those of others' kinds: from the modules of others that integration/tools pins, and one written here.
func foreignServers(t *testing.T) map[string]*server {
	t.Helper()
	build := exec.Command("../tools/build.sh", "crds")
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		t.Fatalf("the definitions of others' kinds: %v", err)
	}
	_, dir, found := strings.Cut(strings.TrimSpace(string(out)), "crds=")
	if !found {
		t.Fatalf("build.sh printed %q", out)
	}
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	all := map[string]*server{}
	for _, file := range append(files, "testdata/kubeflow.org_notebooks.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(t, data)
		all[s.crd.Spec.Names.Kind] = s
	}
	return all
}

// Each object of the examples is one that the API server takes, as strictly as kubectl has it look: ours and those of others by their
// definitions, Kubernetes' own by their types, and pod specs by theirs wherever they are.
func TestExamplesAreTaken(t *testing.T) {
	defined := servers(t)
	maps.Copy(defined, foreignServers(t))
	native := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, e := range exampleObjects(t) {
		switch s := defined[e.kind]; {
		case s == nil:
			if _, _, err := native.Decode(e.json, nil, nil); err != nil {
				t.Errorf("%s/%s: %v", e.folder, e.file, err)
			}
		case e.apiVersion != s.crd.Spec.Group+"/"+s.crd.Spec.Versions[0].Name:
			t.Errorf("%s/%s: %s has the version %s", e.folder, e.file, e.kind, e.apiVersion)
		default:
			if _, errs := s.create(e.json); len(errs) > 0 {
				t.Errorf("%s/%s: %s: %v", e.folder, e.file, e.kind, errs)
			}
		}
		for _, template := range e.pods() {
			if err := yaml.UnmarshalStrict(toJSON(t, template["spec"]), &corev1.PodSpec{}); err != nil {
				t.Errorf("%s/%s: pod spec: %v", e.folder, e.file, err)
			}
		}
	}
}

// exampleSet is what all examples say together.
func exampleSet(t *testing.T) *profile.Set {
	t.Helper()
	var files []profile.File
	for _, e := range exampleObjects(t) {
		if e.kind == profile.KindProfile || e.kind == profile.KindBinding {
			files = append(files, profile.File{Name: e.folder + "/" + e.file, Data: e.text})
		}
	}
	set, err := profile.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// The pods of each example, whoever makes them, are under our RuntimeClass, and get a profile from the binding of the example, which has
// room for what they ask; no policy refuses them.
func TestExamplesAreHeld(t *testing.T) {
	set := exampleSet(t)
	for _, w := range set.Warnings() {
		t.Error(w)
	}
	shipped, parameters := shippedPolicies(t), params(t, set, admission.Nodes{})
	pods := map[string]int{}
	for _, e := range exampleObjects(t) {
		for _, template := range e.pods() {
			pods[e.folder]++
			where := e.folder + "/" + e.file
			var pod corev1.PodTemplateSpec
			if err := yaml.Unmarshal(toJSON(t, template), &pod); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if class := pod.Spec.RuntimeClassName; class == nil || *class != "metsuke-runc" {
				t.Errorf("%s: the pod is not under our RuntimeClass", where)
			}
			for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				checkHeld(t, where, set, profile.Pod{Namespace: e.namespace, Container: c.Name, Image: c.Image, Annotations: pod.Annotations}, c.Resources.Limits)
			}
			if refusals := shipped.admit(t, create("pods", e.namespace, template), parameters); len(refusals) > 0 {
				t.Errorf("%s: %q", where, refusals)
			}
		}
	}
	for _, folder := range folders(t) {
		if pods[folder] == 0 {
			t.Errorf("%s has no pod", folder)
		}
	}
}

// checkHeld checks the profile that a container gets, and that it allows what the container asks for.
func checkHeld(t *testing.T, where string, set *profile.Set, container profile.Pod, asked corev1.ResourceList) {
	t.Helper()
	name, why, err := set.Select(container, profile.Defaults{})
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	if why.Binding == "" || !strings.HasPrefix(why.Source.File, filepath.Dir(where)+"/") || name == profile.Baseline {
		t.Errorf("%s: container %s gets %s by %+v", where, container.Container, name, why)
	}
	r, err := set.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	if ceiling := r.Limits.Memory; ceiling != nil && (asked.Memory().IsZero() || asked.Memory().Value() > *ceiling) {
		t.Errorf("%s: container %s asks for memory %s, and %s allows %d", where, container.Container, asked.Memory(), name, *ceiling)
	}
	if ceiling := r.Limits.CPU; ceiling != nil && (asked.Cpu().IsZero() || asked.Cpu().MilliValue() > *ceiling) {
		t.Errorf("%s: container %s asks for cpu %s, and %s allows %dm", where, container.Container, asked.Cpu(), name, *ceiling)
	}
}

func folders(t *testing.T) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all
}

// Each example says what it is, and the page of all examples leads to it.
func TestExamplesAreExplained(t *testing.T) {
	index, err := os.ReadFile(examples + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders(t) {
		if _, err := os.Stat(filepath.Join(examples, folder, "README.md")); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(index), "]("+folder+"/README.md)") {
			t.Errorf("the index does not lead to %s", folder)
		}
	}
}

// What is there for clusters without Kubeflow runs as what is there for Kubeflow: in the same containers, under the same bounds. What its
// controllers add, and where the command stands, is left out.
func TestWithoutKubeflow(t *testing.T) {
	specs := map[string]string{} // by folder and file
	for _, e := range exampleObjects(t) {
		for _, template := range e.pods() {
			var spec corev1.PodSpec
			if err := yaml.Unmarshal(toJSON(t, template["spec"]), &spec); err != nil {
				t.Fatal(err)
			}
			spec.RestartPolicy = ""
			for i := range spec.Containers {
				c := &spec.Containers[i]
				c.Command, c.WorkingDir, c.Ports = nil, "", nil
				c.Env = slices.DeleteFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "NB_PREFIX" })
			}
			specs[e.folder+"/"+e.file] = string(toJSON(t, spec))
		}
	}
	for theirs, plain := range map[string]string{"notebook/notebook.yaml": "notebook/statefulset.yaml", "training/trainjob.yaml": "training/job.yaml"} {
		if specs[theirs] == "" || specs[theirs] != specs[plain] {
			t.Errorf("%s has\n%s\n%s has\n%s", theirs, specs[theirs], plain, specs[plain])
		}
	}
}
