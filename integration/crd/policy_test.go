// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// policies are what deploy/helm/metsuke/files/admission.yaml has, by name.
type policies map[string]*policy

type policy struct {
	admissionv1.ValidatingAdmissionPolicy
	binding   *admissionv1.ValidatingAdmissionPolicyBinding
	validator validating.Validator
}

func shippedPolicies(t testing.TB) policies {
	t.Helper()
	file, err := os.Open("../../deploy/helm/metsuke/files/admission.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := policies{}
	bindings := map[string]*admissionv1.ValidatingAdmissionPolicyBinding{}
	for docs := utilyaml.NewDocumentDecoder(file); ; {
		doc := make([]byte, 1<<20)
		n, err := docs.Read(doc)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if doc = doc[:n]; strings.Contains(string(doc), "kind: ValidatingAdmissionPolicyBinding\n") {
			b := &admissionv1.ValidatingAdmissionPolicyBinding{}
			if err := yaml.UnmarshalStrict(doc, b); err != nil {
				t.Fatal(err)
			}
			bindings[b.Spec.PolicyName] = b
			continue
		}
		p := &policy{}
		if err := yaml.UnmarshalStrict(doc, &p.ValidatingAdmissionPolicy); err != nil {
			t.Fatal(err)
		}
		p.validator = compile(t, &p.ValidatingAdmissionPolicy)
		out[p.Name] = p
	}
	for name, p := range out {
		if p.binding = bindings[name]; p.binding == nil {
			t.Errorf("%s has no binding", name)
		}
	}
	return out
}

// compile is compilePolicy of package validating, for the oldest Kubernetes that the policies are for.
func compile(t testing.TB, p *admissionv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	env, err := cel.NewCompositionEnv(cel.VariablesTypeName, environment.MustBaseEnvSet(oldest, true))
	if err != nil {
		t.Fatal(err)
	}
	options := cel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, StrictCost: true}
	compiler := cel.NewCompositedCompilerFromTemplate(env)
	var variables []cel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, options, environment.NewExpressions)
	var expressions, messages []cel.ExpressionAccessor
	for _, v := range p.Spec.Validations {
		expressions = append(expressions, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	return validating.NewValidator(
		compiler.CompileCondition(expressions, options, environment.NewExpressions), nil,
		compiler.CompileCondition(nil, options, environment.NewExpressions),
		compiler.CompileCondition(messages, options, environment.NewExpressions), p.Spec.FailurePolicy)
}

// request is one request to the API server.
type request struct {
	operation   admission.Operation
	group       string
	resource    string
	namespace   string
	object, old map[string]any
}

func (r *request) gvr() runtimeschema.GroupVersionResource {
	version := "v1"
	if r.group == "metsuke.dev" {
		version = "v1alpha1"
	}
	return runtimeschema.GroupVersionResource{Group: r.group, Version: version, Resource: r.resource}
}

func (r *request) attributes() *admission.VersionedAttributes {
	object := func(content map[string]any) runtime.Object {
		if content == nil {
			return nil
		}
		return &unstructured.Unstructured{Object: content}
	}
	one := r.object
	if one == nil {
		one = r.old
	}
	kind := (&unstructured.Unstructured{Object: one}).GroupVersionKind()
	attributes := admission.NewAttributesRecord(object(r.object), object(r.old), kind, r.namespace, "it", r.gvr(), "", r.operation, nil, false, nil)
	return &admission.VersionedAttributes{Attributes: attributes, VersionedKind: kind, VersionedObject: object(r.object), VersionedOldObject: object(r.old)}
}

func (p *policy) matches(r *request) bool {
	return slices.ContainsFunc(p.Spec.MatchConstraints.ResourceRules, func(rule admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(rule.APIGroups, r.group) && slices.Contains(rule.APIVersions, r.gvr().Version) && slices.Contains(rule.Resources, r.resource) &&
			slices.Contains(rule.Operations, admissionv1.OperationType(r.operation))
	})
}

// admit returns the messages of the policies that refuse a request, each with each of its params. An expression that fails is an
// error of the test: where the policy ignores it, it would say nothing.
func (all policies) admit(t testing.TB, r *request, params map[string][]runtime.Object) (refusals []string) {
	t.Helper()
	matched := false
	for name, p := range all {
		if !p.matches(r) {
			continue
		}
		matched = true
		of := []runtime.Object{nil}
		if p.Spec.ParamKind != nil {
			of = params[p.Spec.ParamKind.Kind] // none: parameterNotFoundAction is Allow
			if p.binding.Spec.ParamRef == nil || *p.binding.Spec.ParamRef.ParameterNotFoundAction != admissionv1.AllowAction {
				t.Fatalf("%s: %+v", name, p.binding.Spec.ParamRef)
			}
		}
		for _, param := range of {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
			result := p.validator.Validate(context.Background(), r.gvr(), r.attributes(), param, namespace, celconfig.RuntimeCELCostBudget, nil)
			for _, d := range result.Decisions {
				switch d.Evaluation {
				case validating.EvalError:
					t.Errorf("%s: %s", name, d.Message)
				case validating.EvalDeny:
					refusals = append(refusals, d.Message)
				}
			}
		}
	}
	if !matched {
		t.Fatalf("no policy is about %s of %s", r.operation, r.resource)
	}
	return refusals
}
