// SPDX-License-Identifier: Apache-2.0

// Package crd makes the CustomResourceDefinitions. Those of AgentProfile and ProfileBinding come from the forms that package profile
// decodes by, so that the API server takes what a node takes.
//
// What a schema can say is in the schema; what needs several fields of one document is in rules of CEL; what needs several
// documents is for the controller. integration/crd compares both sides and lists where they differ.
//
// The files under deploy/helm/metsuke/files/crds are what [Definitions] returns; go test ./profile/crd -update rewrites them.
package crd

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/profile/form"
)

// Definition is a CustomResourceDefinition of apiextensions.k8s.io/v1, as far as Metsuke uses it.
type Definition struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       spec     `yaml:"spec"`
}

type metadata struct {
	Name        string            `yaml:"name"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

type spec struct {
	Group    string    `yaml:"group"`
	Names    names     `yaml:"names"`
	Scope    string    `yaml:"scope"`
	Versions []version `yaml:"versions"`
}

type names struct {
	Kind       string   `yaml:"kind"`
	ListKind   string   `yaml:"listKind"`
	Plural     string   `yaml:"plural"`
	Singular   string   `yaml:"singular"`
	ShortNames []string `yaml:"shortNames,omitempty"`
	Categories []string `yaml:"categories,omitempty"`
}

type version struct {
	Name         string              `yaml:"name"`
	Served       bool                `yaml:"served"`
	Storage      bool                `yaml:"storage"`
	Columns      []column            `yaml:"additionalPrinterColumns"`
	Subresources map[string]struct{} `yaml:"subresources,omitempty"`
	Schema       map[string]*Schema  `yaml:"schema"`
}

type column struct {
	Name        string `yaml:"name"`
	Type        string `yaml:"type"`
	JSONPath    string `yaml:"jsonPath"`
	Priority    int    `yaml:"priority,omitempty"`
	Description string `yaml:"description"`
}

// Definitions returns the definitions of all kinds: of the two that people write, and of the two by which controller and nodes speak
// (docs/adr/0009-the-cluster.md). All are cluster-scoped: the platform team's, with names that are unique on every node.
func Definitions() ([]*Definition, error) {
	profiles, err := profileSchema()
	if err != nil {
		return nil, err
	}
	return []*Definition{
		definition(profile.KindProfile, "ap", profileColumns(), profiles),
		definition(profile.KindBinding, "pb", bindingColumns(), bindingSchema()),
		acceptedDocument(),
		agentNode(),
	}, nil
}

func groupVersion() (group, version string) {
	group, version, _ = strings.Cut(profile.APIVersion, "/")
	return group, version
}

func definition(kind, short string, columns []column, schema *Schema) *Definition {
	singular := strings.ToLower(kind)
	group, v := groupVersion()
	var shorts []string
	if short != "" {
		shorts = []string{short}
	}
	return &Definition{
		APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition",
		Metadata: metadata{
			Name:        singular + "s." + group,
			Labels:      map[string]string{"app.kubernetes.io/part-of": "metsuke"},
			Annotations: map[string]string{"helm.sh/resource-policy": "keep"}, // else helm uninstall takes all profiles away
		},
		Spec: spec{
			Group: group, Scope: "Cluster",
			Names: names{Kind: kind, ListKind: kind + "List", Plural: singular + "s", Singular: singular, ShortNames: shorts, Categories: []string{"metsuke"}},
			Versions: []version{{
				Name: v, Served: true, Storage: true, Columns: columns, Subresources: map[string]struct{}{"status": {}},
				Schema: map[string]*Schema{"openAPIV3Schema": schema},
			}},
		},
	}
}

// Marshal writes the definition as the file that is shipped.
func (d *Definition) Marshal() ([]byte, error) { return Marshal("profile/crd", d) }

// Marshal writes objects as the documents of one YAML file, made by the named package of Metsuke.
func Marshal(by string, objects ...any) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# SPDX-License-Identifier: Apache-2.0\n# Made by package %s; go test ./%[1]s -update rewrites it. DO NOT EDIT.\n", by)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, o := range objects {
		if err := enc.Encode(o); err != nil {
			return nil, err
		}
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// document is the schema of a whole object.
func document(doc string, spec *form.Field, status *Schema, rules ...Rule) *Schema {
	name := profile.NameForm()
	return &Schema{
		Type: "object", Description: doc, Required: []string{"spec"},
		Properties: map[string]*Schema{
			"apiVersion": {Type: "string", Description: "The version of the form: " + profile.APIVersion + "."},
			"kind":       {Type: "string", Description: "What the object is."},
			"metadata":   {Type: "object", Properties: map[string]*Schema{"name": {Type: "string", MaxLength: name.Most, Pattern: name.Pattern}}},
			"spec":       schemaOf(spec),
			"status":     status,
		},
		Validations: rules,
	}
}
