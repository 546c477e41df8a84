// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/profile/crd"
)

// What is shipped is for this namespace.
const (
	shipped   = "../../deploy/helm/metsuke/files/admission.yaml"
	namespace = "metsuke-system"
)

// The file that is shipped is what the package makes. What it does is tested in integration/crd, in the API server's code.
func TestPoliciesAreShipped(t *testing.T) {
	got, err := crd.Marshal("cluster/admission", Objects(namespace)...)
	if err != nil {
		t.Fatal(err)
	}
	goldentest.Equal(t, shipped, got)
}

func parse(t *testing.T, bindings ...string) *profile.Set {
	t.Helper()
	text := "apiVersion: metsuke.dev/v1alpha1\nkind: AgentProfile\nmetadata: {name: coder}\nspec: {}\n"
	for i, spec := range bindings {
		text += fmt.Sprintf("---\napiVersion: metsuke.dev/v1alpha1\nkind: ProfileBinding\nmetadata: {name: b%d}\nspec: %s\n", i, spec)
	}
	set, err := profile.Parse([]profile.File{{Name: "p.yaml", Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestParams(t *testing.T) {
	got, err := Params(parse(t, "{namespaces: [a, b], default: coder, allowed: [baseline]}", `{namespaces: ["*"], allowed: [coder]}`,
		"{namespaces: [c]}", "{namespaces: [d], containers: [{names: [x], profile: coder}]}"), Nodes{AllowedAnnotations: []string{"io.katacontainers.x", "io.katacontainers.y"}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"_default": "baseline", "_annotations": "io.katacontainers.x io.katacontainers.y",
		"a": "b0", "b": "b0", "_allowed_b0": "coder, baseline",
		"_others": "b1", "_allowed_b1": "coder", "_choose_b1": "",
		"c": "b2", "_allowed_b2": "", "_choose_b2": "",
		"d": "b3", "_allowed_b3": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParamsAreBounded(t *testing.T) {
	var bindings []string
	for i := range 20 {
		var names strings.Builder
		for j := range 1000 {
			fmt.Fprintf(&names, "%s-%d-%d,", strings.Repeat("n", 50), i, j)
		}
		bindings = append(bindings, "{namespaces: ["+names.String()+"], default: coder}")
	}
	var files []profile.File
	for i, spec := range bindings {
		files = append(files, profile.File{Name: fmt.Sprintf("%d.yaml", i), Data: fmt.Appendf(nil,
			"apiVersion: metsuke.dev/v1alpha1\nkind: ProfileBinding\nmetadata: {name: b%d}\nspec: %s\n", i, strings.ReplaceAll(spec, "coder", "baseline"))})
	}
	set, err := profile.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Params(set, Nodes{}); err == nil || !strings.Contains(err.Error(), "ConfigMap metsuke-admission") {
		t.Errorf("got %v", err)
	}
}
