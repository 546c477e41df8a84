// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite what is in deploy/kustomize, deploy/uninstall and deploy/networkpolicy from the chart")

const (
	whole     = "../../deploy"
	chart     = whole + "/helm/metsuke"
	rendered  = whole + "/kustomize/metsuke.yaml"
	uninstall = whole + "/uninstall"
	network   = whole + "/networkpolicy"
	namespace = "metsuke-system"
	header    = "# SPDX-License-Identifier: Apache-2.0\n# Made from the chart in deploy/helm/metsuke: go test ./... -update in integration/deploy. DO NOT EDIT.\n"
)

// render is what `helm template metsuke deploy/helm/metsuke --namespace metsuke-system` does.
func render(t *testing.T, values map[string]any) []byte {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "metsuke", Namespace: namespace, Revision: 1, IsInstall: true}
	capabilities := chartutil.DefaultCapabilities.Copy()
	if capabilities.KubeVersion.Version == "" {
		t.Fatal("helm knows no version of Kubernetes")
	}
	final, err := chartutil.ToRenderValues(c, values, release, capabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, final)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range files {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&all, "---\n%s\n", files[name])
	}
	return all.Bytes()
}

// An object as it is sent to the API server.
type object map[string]any

func (o object) id() string {
	meta, _ := o["metadata"].(map[string]any)
	return fmt.Sprintf("%v/%v/%v/%v", o["apiVersion"], o["kind"], meta["namespace"], meta["name"])
}

// objects are those of a stream of documents, by what they are.
func objects(t *testing.T, text []byte) map[string]object {
	t.Helper()
	all := map[string]object{}
	for document := range strings.SplitSeq("\n"+string(text), "\n---") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(document), &o); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(o) == 0 {
			continue // comments
		}
		if _, twice := all[o.id()]; twice {
			t.Errorf("%s is there twice", o.id())
		}
		all[o.id()] = o
	}
	return all
}

func build(t *testing.T, dir string) map[string]object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

// helm template and kustomize build give the same objects, but for the namespace, which Helm makes by itself.
func TestHelmAndKustomizeAgree(t *testing.T) {
	helm := objects(t, render(t, nil))
	if *update {
		write(t, rendered, ofTemplates(t, helm))
	}
	all := build(t, whole)
	ns := "v1/Namespace/<nil>/" + namespace
	if all[ns] == nil {
		t.Errorf("kustomize makes no %s", ns)
	}
	delete(all, ns)
	if diff := cmp.Diff(helm, all); diff != "" {
		t.Errorf("helm (-) and kustomize (+) differ; run with -update:\n%s", diff)
	}
}

// What deploy/uninstall changes is what node.uninstall changes in the chart: one object, under the name that it has already. The chart takes
// the RuntimeClasses away too, which kubectl apply cannot.
func TestUninstallAgrees(t *testing.T) {
	helm, installed := objects(t, render(t, map[string]any{"node": map[string]any{"uninstall": true}})), objects(t, render(t, nil))
	changed := map[string]object{}
	for id, o := range helm {
		switch {
		case installed[id] == nil:
			t.Errorf("uninstalling makes %s, which nobody would remove", id)
		case !cmp.Equal(installed[id], o):
			changed[id] = o
		}
	}
	for id, o := range installed {
		if kept := helm[id] != nil; kept == (o["kind"] == "RuntimeClass") {
			t.Errorf("%s is there while uninstalling: %t", id, kept)
		}
	}
	if len(changed) != 1 {
		t.Errorf("%d objects are changed", len(changed))
	}
	if *update {
		write(t, uninstall+"/metsuke.yaml", inOneFile(t, changed))
	}
	if diff := cmp.Diff(changed, build(t, uninstall)); diff != "" {
		t.Errorf("helm (-) and kustomize (+) differ; run with -update:\n%s", diff)
	}
}

// What deploy/networkpolicy adds is what networkPolicy.enabled adds to the chart.
func TestNetworkPoliciesAgree(t *testing.T) {
	added, installed := objects(t, render(t, map[string]any{"networkPolicy": map[string]any{"enabled": true}})), objects(t, render(t, nil))
	maps.DeleteFunc(added, func(id string, o object) bool { return cmp.Equal(installed[id], o) })
	if len(added) != 2 {
		t.Errorf("%d objects are added or changed", len(added))
	}
	if *update {
		write(t, network+"/metsuke.yaml", inOneFile(t, added))
	}
	if diff := cmp.Diff(added, build(t, network)); diff != "" {
		t.Errorf("helm (-) and kustomize (+) differ; run with -update:\n%s", diff)
	}
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o644); err != nil { //nolint:gosec // it is no secret
		t.Fatal(err)
	}
}

// ofTemplates writes the objects that are not in files of the chart.
func ofTemplates(t *testing.T, all map[string]object) []byte {
	t.Helper()
	inFiles := map[string]object{}
	for _, pattern := range []string{"/files/*.yaml", "/files/crds/*.yaml"} {
		files, err := filepath.Glob(chart + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(inFiles, objects(t, text))
		}
	}
	all = maps.Clone(all)
	maps.DeleteFunc(all, func(id string, _ object) bool { return inFiles[id] != nil })
	return inOneFile(t, all)
}

func inOneFile(t *testing.T, all map[string]object) []byte {
	t.Helper()
	out := bytes.NewBufferString(header)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		text, err := yaml.Marshal(all[id])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(out, "---\n%s", text)
	}
	return out.Bytes()
}
