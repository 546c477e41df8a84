// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	k8sadmission "k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/yaml"

	"metsuke.dev/metsuke/cluster/admission"
	"metsuke.dev/metsuke/internal/kata"
	"metsuke.dev/metsuke/profile"
)

func parse(t testing.TB, documents ...string) *profile.Set {
	t.Helper()
	set, err := profile.Parse([]profile.File{{Name: "p.yaml", Data: []byte(strings.Join(documents, "---\n"))}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func withName(name, document string) string {
	return strings.Replace(document, "{name: it}", "{name: "+name+"}", 1)
}

func params(t testing.TB, set *profile.Set, nodes admission.Nodes) map[string][]runtime.Object {
	t.Helper()
	data, err := admission.Params(set, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]runtime.Object{"ConfigMap": {&corev1.ConfigMap{Data: data}}}
}

// shapes are the kinds of objects that have pods in them.
var shapes = map[string]func(pod map[string]any) *request{
	"pods": func(pod map[string]any) *request {
		return &request{group: "", object: merge(map[string]any{"apiVersion": "v1", "kind": "Pod"}, pod)}
	},
	"deployments": workload("apps", "Deployment"), "statefulsets": workload("apps", "StatefulSet"), "daemonsets": workload("apps", "DaemonSet"),
	"replicasets": workload("apps", "ReplicaSet"), "jobs": workload("batch", "Job"), "replicationcontrollers": workload("", "ReplicationController"),
	"cronjobs": func(pod map[string]any) *request {
		return &request{group: "batch", object: map[string]any{"apiVersion": "batch/v1", "kind": "CronJob",
			"spec": map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": pod}}}}}
	},
}

func workload(group, kind string) func(pod map[string]any) *request {
	version := "v1"
	if group != "" {
		version = group + "/v1"
	}
	return func(pod map[string]any) *request {
		return &request{group: group, object: map[string]any{"apiVersion": version, "kind": kind, "spec": map[string]any{"template": pod}}}
	}
}

func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func pod(class string, annotations map[string]string) map[string]any {
	spec := map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}}
	if class != "" {
		spec["runtimeClassName"] = class
	}
	meta := map[string]any{}
	if annotations != nil {
		of := map[string]any{}
		for k, v := range annotations {
			of[k] = v
		}
		meta["annotations"] = of
	}
	return map[string]any{"metadata": meta, "spec": spec}
}

func create(shape, namespace string, pod map[string]any) *request {
	r := shapes[shape](pod)
	r.operation, r.resource, r.namespace = k8sadmission.Create, shape, namespace
	return r
}

// The API server refuses exactly the pods of which a node could start no container, as profile.Set.Select has it.
func TestPodsAreRefusedAsOnTheNode(t *testing.T) {
	all := shippedPolicies(t)
	documents := []string{
		withName("coder", profileOf("{}")), withName("browser", profileOf("{}")),
		withName("team-a", bindingOf("{namespaces: [team-a, team-b], default: coder, allowed: [browser]}")),
		withName("choose", bindingOf("{namespaces: [choose], allowed: [coder, browser]}")),
		withName("closed", bindingOf("{namespaces: [closed]}")),
		withName("only", bindingOf("{namespaces: [only], containers: [{names: [special], profile: browser}]}")),
		withName("pass", bindingOf("{namespaces: [pass], default: passthrough}")),
		withName("a.choose", bindingOf("{namespaces: [dots], default: coder}")),
	}
	sets := map[string]*profile.Set{
		"no star":       parse(t, documents...),
		"star":          parse(t, append(documents, withName("rest", bindingOf(`{namespaces: ["*"], default: browser, allowed: [baseline]}`)))...),
		"closed star":   parse(t, append(documents, withName("rest", bindingOf(`{namespaces: ["*"]}`)))...),
		"choosing star": parse(t, append(documents, withName("rest", bindingOf(`{namespaces: ["*", x], allowed: [coder]}`)))...),
		"nothing":       parse(t, documents[0]),
	}
	asks := []map[string]string{nil, {}, {"other": "x"}}
	for _, name := range []string{"", "coder", "browser", "baseline", "passthrough", "nope", "coder, browser", ",", "a\nb", strings.Repeat("x", 1<<14)} {
		asks = append(asks, map[string]string{profile.Annotation: name})
	}
	refused, admitted := 0, 0
	for setName, set := range sets {
		for _, nodes := range []admission.Nodes{{}, {Defaults: profile.Defaults{Profile: "coder"}}} {
			p := params(t, set, nodes)
			for _, namespace := range []string{"team-a", "team-b", "choose", "closed", "only", "pass", "dots", "x", "other"} {
				for _, annotations := range asks {
					for _, class := range []string{"", "runc", "metsukex", "metsuke", "metsuke-kata"} {
						want := false
						if _, annotated := annotations[profile.Annotation]; annotated || class == "metsuke" || class == "metsuke-kata" {
							want = !starts(set, nodes, namespace, annotations)
						}
						shape := []string{"pods", "deployments", "cronjobs"}[(refused+admitted)%3]
						got := all.admit(t, create(shape, namespace, pod(class, annotations)), p)
						if (len(got) > 0) != want {
							t.Errorf("%s, node default %q, %s in %s, class %q, annotations %.60q: got %q, refused on the node: %v",
								setName, nodes.Defaults.Profile, shape, namespace, class, annotations, got, want)
						}
						for _, message := range got {
							if len(message) > 400 || strings.ContainsAny(message, "\n") {
								t.Errorf("message %q", message)
							}
						}
						if want {
							refused++
						} else {
							admitted++
						}
					}
				}
			}
		}
	}
	if refused < 500 || admitted < 500 {
		t.Errorf("%d refused, %d admitted: the table says little", refused, admitted)
	}
}

// starts says that some container of a pod may start.
func starts(set *profile.Set, nodes admission.Nodes, namespace string, annotations map[string]string) bool {
	for _, container := range []string{"c", "special"} {
		if _, _, err := set.Select(profile.Pod{Namespace: namespace, Container: container, Image: "i", Annotations: annotations}, nodes.Defaults); err == nil {
			return true
		}
	}
	return false
}

func TestMessagesSayWhatIsAllowed(t *testing.T) {
	all := shippedPolicies(t)
	set := parse(t, withName("coder", profileOf("{}")), withName("team-a", bindingOf("{namespaces: [team-a], default: coder, allowed: [baseline]}")),
		withName("choose", bindingOf("{namespaces: [choose], allowed: [coder]}")), withName("closed", bindingOf("{namespaces: [closed]}")))
	asks := func(name string) map[string]string { return map[string]string{profile.Annotation: name} }
	for _, c := range []struct {
		namespace   string
		annotations map[string]string
		want        string
	}{
		{"team-a", asks("browser"), "the annotation metsuke.dev/profile asks for browser, and in namespace team-a the binding team-a allows coder, baseline"},
		{"team-a", asks("a\x1b\nb"), "the annotation metsuke.dev/profile asks for what is no name, and in namespace team-a the binding team-a allows coder, baseline"},
		{"other", asks("coder"), "the annotation metsuke.dev/profile asks for coder, and in namespace other the nodes' configuration (no binding names the namespace) allows baseline"},
		{"closed", asks("coder"), "the annotation metsuke.dev/profile asks for coder, and in namespace closed the binding closed allows none"},
		{"closed", nil, "in namespace closed the binding closed allows none"},
		{"choose", nil, "there is no default profile; set the annotation metsuke.dev/profile: in namespace choose the binding choose allows coder"},
		{"team-a", map[string]string{"io.katacontainers.config.hypervisor.kernel_params": "x"},
			"annotation io.katacontainers.config.hypervisor.kernel_params: it could change what Metsuke relies on in the guest: remove it, or have the nodes' operator name it in delegate.allowed_annotations of Metsuke's config.toml"},
	} {
		for shape := range shapes {
			got := all.admit(t, create(shape, c.namespace, pod("metsuke-kata", c.annotations)), params(t, set, admission.Nodes{}))
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("%s: got %q\nwant %s", shape, got, c.want)
			}
		}
	}
}

// Kata's annotations are refused where the node refuses them, and only for Kata.
func TestKataAnnotations(t *testing.T) {
	all := shippedPolicies(t)
	const params1, params2 = "io.katacontainers.config.hypervisor.kernel_params", "io.katacontainers.config.agent.kernel_modules"
	nodes := admission.Nodes{AllowedAnnotations: []string{params2, "io.katacontainers.x"}}
	for _, key := range append([]string{params1, params2, "io.katacontainers.x", "io.katacontainers.", "io.kubernetes.cri-o.SandboxID", "io.kubernetes.docker.type", "example.com/io.katacontainers.x"}, kata.Harmless...) {
		annotations := map[string]string{key: "x"}
		refuses := kata.CheckAnnotations(annotations, nodes.AllowedAnnotations) != nil
		for class, isKata := range map[string]bool{"": false, "metsuke": false, "metsuke-runc": false, "metsuke-kata": true, "metsuke-kata-clh": true, "kata": false} {
			got := all.admit(t, create("pods", "x", pod(class, annotations)), params(t, parse(t, profileOf("{}")), nodes))
			if (len(got) > 0) != (isKata && refuses) {
				t.Errorf("%s with class %q: %q", key, class, got)
			}
		}
	}
}

// What an update leaves as it was passes, whatever the bindings say by now.
func TestUpdates(t *testing.T) {
	all := shippedPolicies(t)
	p := params(t, parse(t, withName("a", bindingOf("{namespaces: [a], allowed: [baseline]}"))), admission.Nodes{})
	asks := func(name string) map[string]string { return map[string]string{profile.Annotation: name, "x": "y"} }
	kernel := map[string]string{profile.Annotation: "baseline", "io.katacontainers.config.hypervisor.kernel_params": "x"}
	for name, c := range map[string]struct {
		old, pod map[string]any
		refused  bool
	}{
		"the same, which would be refused now": {pod("metsuke", asks("coder")), pod("metsuke", asks("coder")), false},
		"something else changed":               {pod("metsuke", asks("coder")), pod("metsuke", map[string]string{profile.Annotation: "coder"}), false},
		"none, as before":                      {pod("metsuke", nil), pod("metsuke", map[string]string{"x": "y"}), false},
		"another":                              {pod("metsuke", asks("coder")), pod("metsuke", asks("browser")), true},
		"one that may be":                      {pod("metsuke", asks("coder")), pod("metsuke", asks("baseline")), false},
		"removed":                              {pod("metsuke", asks("baseline")), pod("metsuke", nil), true},
		"under Metsuke from now on":            {pod("runc", nil), pod("metsuke", nil), true},
		"Kata's, as before":                    {pod("metsuke-kata", kernel), pod("metsuke-kata", kernel), false},
		"Kata's, added":                        {pod("metsuke-kata", asks("baseline")), pod("metsuke-kata", kernel), true},
		"Kata's, under Kata from now on":       {pod("metsuke-runc", kernel), pod("metsuke-kata", kernel), true},
	} {
		for shape, of := range shapes {
			r := create(shape, "a", c.pod)
			r.operation, r.old = k8sadmission.Update, of(c.old).object
			if got := all.admit(t, r, p); (len(got) > 0) != c.refused {
				t.Errorf("%s, %s: %q", name, shape, got)
			}
		}
	}
}

func content(t testing.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestBindingsThatNameANamespaceTwice(t *testing.T) {
	all := shippedPolicies(t)
	others := []runtime.Object{}
	for name, spec := range map[string]string{"a": "{namespaces: [a, b]}", "rest": `{namespaces: ["*"]}`, "it": "{namespaces: [x]}"} {
		others = append(others, &unstructured.Unstructured{Object: content(t, withName(name, bindingOf(spec)))})
	}
	for _, c := range []struct{ old, spec, want string }{
		{"", "{namespaces: [c, d]}", ""},
		{"", "{namespaces: [x]}", ""},
		{"", "{namespaces: [c, b]}", "namespace b already has the binding a; expected one binding for it"},
		{"", `{namespaces: ["*"]}`, "namespace * already has the binding rest; expected one binding for it"},
		{"{namespaces: [b]}", "{namespaces: [b], default: baseline}", ""},
		{"{namespaces: [x]}", "{namespaces: [x, b]}", "namespace b already has the binding a; expected one binding for it"},
	} {
		r := &request{operation: k8sadmission.Create, group: "metsuke.dev", resource: "profilebindings", object: content(t, bindingOf(c.spec))}
		if c.old != "" {
			r.operation, r.old = k8sadmission.Update, content(t, bindingOf(c.old))
		}
		if got := strings.Join(all.admit(t, r, map[string][]runtime.Object{profile.KindBinding: others}), "; "); got != c.want {
			t.Errorf("%s after %q: got %q, want %q", c.spec, c.old, got, c.want)
		}
	}
}

func TestProfilesInUseAreNotDeleted(t *testing.T) {
	all := shippedPolicies(t)
	for status, want := range map[string]string{
		"": "", "status: {}": "", "status: {usedBy: []}": "",
		"status: {usedBy: [ProfileBinding/a, AgentProfile/b]}": "the profile is used by ProfileBinding/a, AgentProfile/b; change them first",
	} {
		r := &request{operation: k8sadmission.Delete, group: "metsuke.dev", resource: "agentprofiles", old: content(t, profileOf("{}")+status)}
		if got := strings.Join(all.admit(t, r, nil), "; "); got != want {
			t.Errorf("%s: got %q, want %q", status, got, want)
		}
	}
}
