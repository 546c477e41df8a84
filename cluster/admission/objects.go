// SPDX-License-Identifier: Apache-2.0

package admission

// What follows is admissionregistration.k8s.io/v1 of Kubernetes 1.30 and later, as far as Metsuke uses it.

// Object is a ValidatingAdmissionPolicy or a ValidatingAdmissionPolicyBinding.
type Object struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       any      `yaml:"spec"`
}

type metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

type policySpec struct {
	FailurePolicy    string           `yaml:"failurePolicy"`
	ParamKind        *paramKind       `yaml:"paramKind,omitempty"`
	MatchConstraints matchConstraints `yaml:"matchConstraints"`
	Variables        []variable       `yaml:"variables,omitempty"`
	Validations      []validation     `yaml:"validations"`
}

type paramKind struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
}

type matchConstraints struct {
	ResourceRules []resourceRule `yaml:"resourceRules"`
}

type resourceRule struct {
	APIGroups   []string `yaml:"apiGroups,flow"`
	APIVersions []string `yaml:"apiVersions,flow"`
	Operations  []string `yaml:"operations,flow"`
	Resources   []string `yaml:"resources,flow"`
	Scope       string   `yaml:"scope"` // the default, without which kubectl apply sees a change each time
}

type variable struct {
	Name       string `yaml:"name"`
	Expression string `yaml:"expression"`
}

type validation struct {
	Expression        string `yaml:"expression"`
	Message           string `yaml:"message,omitempty"`
	MessageExpression string `yaml:"messageExpression,omitempty"`
	Reason            string `yaml:"reason,omitempty"`
}

type bindingSpec struct {
	PolicyName        string    `yaml:"policyName"`
	ValidationActions []string  `yaml:"validationActions,flow"`
	ParamRef          *paramRef `yaml:"paramRef,omitempty"`
}

type paramRef struct {
	Name                    string    `yaml:"name,omitempty"`
	Namespace               string    `yaml:"namespace,omitempty"`
	Selector                *struct{} `yaml:"selector,omitempty"`
	ParameterNotFoundAction string    `yaml:"parameterNotFoundAction"`
}

// policy returns a policy and its binding.
func policy(name string, spec policySpec, ref *paramRef) []any {
	meta := metadata{Name: name, Labels: map[string]string{"app.kubernetes.io/part-of": "metsuke"}}
	const group = "admissionregistration.k8s.io/v1"
	return []any{
		&Object{group, "ValidatingAdmissionPolicy", meta, spec},
		&Object{group, "ValidatingAdmissionPolicyBinding", meta, bindingSpec{PolicyName: name, ValidationActions: []string{"Deny"}, ParamRef: ref}},
	}
}
