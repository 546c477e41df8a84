// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"metsuke.dev/metsuke/profile"
)

// object is what all sides understand of a document.
type object struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       any            `json:"spec"`
}

func (o *object) name() string {
	name, _ := o.Metadata["name"].(string)
	return name
}

// node returns what package profile says of one document. What it refers to is there, and as loose as can be, so that no fault is
// one between documents.
func node(text []byte) error {
	files := []profile.File{{Name: "it.yaml", Data: text}}
	var o object
	if yaml.Unmarshal(text, &o) == nil {
		files = append(files, profile.File{Name: "others.yaml", Data: others(&o)})
	}
	_, err := profile.Parse(files)
	return err
}

var nameForm = regexp.MustCompile(profile.NameForm().Pattern)

func others(o *object) []byte {
	var names []string
	add := func(v any) {
		name, _ := v.(string)
		known := []string{"", profile.Baseline, profile.Passthrough, "pod"}
		if o.Kind == profile.KindProfile {
			known = append(known, o.name())
		}
		if nameForm.MatchString(name) && !slices.Contains(known, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	spec, _ := o.Spec.(map[string]any)
	for _, field := range []string{"extends", "allowed"} {
		list, _ := spec[field].([]any)
		for _, v := range list {
			add(v)
		}
	}
	add(spec["default"])
	containers, _ := spec["containers"].([]any)
	for _, c := range containers {
		if m, ok := c.(map[string]any); ok {
			add(m["profile"])
		}
	}
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\napiVersion: %s\nkind: %s\nmetadata: {name: %q}\nspec: {noNewPrivileges: inherit, audit: {delivery: buffered, onLoss: continue}}\n",
			profile.APIVersion, profile.KindProfile, name)
	}
	return []byte(b.String())
}

// fromCluster is the document that a node is given of an object: what the API server stored, less all but name and spec.
func fromCluster(t testing.TB, content map[string]any) []byte {
	metadata, _ := content["metadata"].(map[string]any)
	d := map[string]any{"apiVersion": content["apiVersion"], "kind": content["kind"], "metadata": map[string]any{"name": metadata["name"]}}
	if spec, ok := content["spec"]; ok {
		d["spec"] = spec
	}
	return toJSON(t, d)
}
