// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/yaml"

	"metsuke.dev/metsuke/profile/crd"
)

// server does what the API server does with the objects of one kind, in its own code.
type server struct {
	crd      *apiextensions.CustomResourceDefinition
	schema   *schema.Structural
	strategy rest.RESTCreateStrategy
}

// servers returns a server by kind.
func servers(t testing.TB) map[string]*server {
	t.Helper()
	definitions, err := crd.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*server{}
	for _, d := range definitions {
		data, err := os.ReadFile("../../deploy/helm/metsuke/files/crds/" + d.Spec.Names.Plural + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		out[d.Spec.Names.Kind] = newServer(t, data)
	}
	return out
}

func newServer(t testing.TB, data []byte) *server {
	t.Helper()
	scheme := runtime.NewScheme()
	install.Install(scheme)
	var v1 apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &v1); err != nil {
		t.Fatal(err)
	}
	scheme.Default(&v1)
	s := &server{crd: &apiextensions.CustomResourceDefinition{}}
	if err := scheme.Convert(&v1, s.crd, nil); err != nil {
		t.Fatal(err)
	}
	s.crd.Status.StoredVersions = []string{v1.Spec.Versions[0].Name} // as CustomResourceDefinition's strategy does before it validates
	props := s.crd.Spec.Validation.OpenAPIV3Schema
	var err error
	if s.schema, err = schema.NewStructural(props); err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		t.Fatal(err)
	}
	gvk := gvkOf(&v1)
	s.strategy = customresource.NewStrategy(typer{}, v1.Spec.Scope == apiextensionsv1.NamespaceScoped, gvk, validator, nil, s.schema, nil, nil, nil)
	return s
}

// create returns what kubectl apply would be answered for an object, and the object as it would be stored.
func (s *server) create(object []byte) (stored map[string]any, errs []error) {
	var content map[string]any
	if err := kjson.Unmarshal(object, &content); err != nil {
		return nil, []error{err}
	}
	u := &unstructured.Unstructured{Object: content}
	if unknown := pruning.PruneWithOptions(content, s.schema, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(unknown) > 0 {
		return nil, []error{fmt.Errorf("unknown fields: %v", unknown)} // --validate=strict, which is kubectl's default
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(content, s.schema)
	defaulting.Default(content, s.schema)
	_, _, unknown, err := objectmeta.GetObjectMetaWithOptions(content, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, []error{fmt.Errorf("metadata: %w", err)}
	}
	if len(unknown) > 0 {
		return nil, []error{fmt.Errorf("unknown fields: %v", unknown)}
	}
	s.strategy.PrepareForCreate(context.Background(), u)
	for _, err := range s.strategy.Validate(context.Background(), u) {
		errs = append(errs, err)
	}
	return content, errs
}

func (s *server) validate() (errs []error) {
	for _, err := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), s.crd) {
		errs = append(errs, err)
	}
	return errs
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func gvkOf(d *apiextensionsv1.CustomResourceDefinition) runtimeschema.GroupVersionKind {
	return runtimeschema.GroupVersionKind{Group: d.Spec.Group, Version: d.Spec.Versions[0].Name, Kind: d.Spec.Names.Kind}
}

// typer tells the kind of an unstructured object.
type typer struct{}

func (typer) ObjectKinds(o runtime.Object) ([]runtimeschema.GroupVersionKind, bool, error) {
	return []runtimeschema.GroupVersionKind{o.GetObjectKind().GroupVersionKind()}, false, nil
}

func (typer) Recognizes(runtimeschema.GroupVersionKind) bool { return true }
