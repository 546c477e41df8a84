// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"
	"slices"
	"strings"

	"metsuke.dev/metsuke/internal/kata"
	"metsuke.dev/metsuke/profile"
)

// RuntimeClass is the name of Metsuke's RuntimeClass, and what those of its handlers begin with, before a hyphen. Where the delegate
// is one of Kata's, the name goes on with Kata.
const (
	RuntimeClass = "metsuke"
	kataClass    = RuntimeClass + "-kata"
)

var createAndUpdate = []string{"CREATE", "UPDATE"}

// Objects returns all policies, each with its binding, for a cluster in which Metsuke is in namespace.
func Objects(namespace string) []any {
	ref := &paramRef{Name: ConfigMap, Namespace: namespace, ParameterNotFoundAction: "Allow"}
	return slices.Concat(
		pods(ref, "metsuke-pods", "%s", resourceRule{[]string{""}, []string{"v1"}, createAndUpdate, []string{"pods"}, "*"}),
		pods(ref, "metsuke-workloads", "%s.spec.template",
			resourceRule{[]string{"apps"}, []string{"v1"}, createAndUpdate, []string{"deployments", "statefulsets", "daemonsets", "replicasets"}, "*"},
			resourceRule{[]string{"batch"}, []string{"v1"}, createAndUpdate, []string{"jobs"}, "*"},
			resourceRule{[]string{""}, []string{"v1"}, createAndUpdate, []string{"replicationcontrollers"}, "*"}),
		pods(ref, "metsuke-cronjobs", "%s.spec.jobTemplate.spec.template",
			resourceRule{[]string{"batch"}, []string{"v1"}, createAndUpdate, []string{"cronjobs"}, "*"}),
		namespacesTwice(),
		profileInUse(),
	)
}

// pods returns the policy about pods that are at a path in objects. What an update leaves as it was passes: the object is there, and
// whoever changes something else in it (a controller, kubectl scale) is not to be stopped.
func pods(ref *paramRef, name, path string, rules ...resourceRule) []any {
	pod, old := fmt.Sprintf(path, "object"), fmt.Sprintf(path, "oldObject")
	annotations := func(pod string) string {
		return fmt.Sprintf("has(%[1]s.metadata) && has(%[1]s.metadata.annotations) ? %[1]s.metadata.annotations : {}", pod)
	}
	key := quote(profile.Annotation)
	return policy(name, policySpec{
		FailurePolicy: "Ignore", ParamKind: &paramKind{"v1", "ConfigMap"},
		MatchConstraints: matchConstraints{rules},
		Variables: []variable{
			{"annotations", annotations(pod)},
			{"before", "oldObject == null ? {} : " + annotations(old)},
			{"class", fmt.Sprintf("has(%[1]s.spec.runtimeClassName) ? %[1]s.spec.runtimeClassName : ''", pod)},
			{"classBefore", fmt.Sprintf("oldObject != null && has(%[1]s.spec.runtimeClassName) ? %[1]s.spec.runtimeClassName : ''", old)},
			{"asks", key + " in variables.annotations"},
			{"asked", "variables.asks ? variables.annotations[" + key + "] : ''"},
			{"askedBefore", fmt.Sprintf("oldObject != null && (%s in variables.before) == variables.asks && (!variables.asks || variables.before[%[1]s] == variables.asked)", key)},
			{"binding", fmt.Sprintf("request.namespace in params.data ? params.data[request.namespace] : '%s' in params.data ? params.data['%[1]s'] : ''", othersKey)},
			{"allowed", fmt.Sprintf("variables.binding == '' ? params.data['%s'] : params.data['%s' + variables.binding]", defaultKey, allowedPrefix)},
			{"allows", "'namespace ' + request.namespace + ' ' + (variables.binding == '' ? \"the nodes' configuration (no binding names the namespace)\" : " +
				"'the binding ' + variables.binding) + ' allows ' + (variables.allowed == '' ? 'none' : variables.allowed)"},
			{"refused", refusedAnnotations()},
		},
		Validations: []validation{{
			Expression: fmt.Sprintf("!variables.asks || variables.askedBefore || variables.asked != '' && variables.asked in variables.allowed.split('%s')", separator),
			Message:    "the annotation " + profile.Annotation + " asks for a profile that the namespace may not choose",
			MessageExpression: fmt.Sprintf("'the annotation %s asks for ' + (variables.asked.matches(r'%s') ? variables.asked : 'what is no name') + ', and in ' + variables.allows",
				profile.Annotation, profile.NameForm().Pattern),
		}, {
			Expression: fmt.Sprintf("variables.asks || variables.class != '%[1]s' && !variables.class.startsWith('%[1]s-') || variables.askedBefore && variables.class == variables.classBefore || "+
				"!(('%[2]s' + variables.binding) in params.data)", RuntimeClass, choosePrefix),
			Message: "the namespace has no default profile; set the annotation " + profile.Annotation,
			MessageExpression: fmt.Sprintf("variables.allowed == '' ? 'in ' + variables.allows : 'there is no default profile; set the annotation %s: in ' + variables.allows",
				profile.Annotation),
		}, {
			Expression:        fmt.Sprintf("variables.class != '%[1]s' && !variables.class.startsWith('%[1]s-') || size(variables.refused) == 0", kataClass),
			Message:           "an annotation could change what Metsuke relies on in the guest",
			MessageExpression: "'annotation ' + variables.refused[0] + \": it could change what Metsuke relies on in the guest: remove it, or have the nodes' operator name it in delegate.allowed_annotations of Metsuke's config.toml\"",
		}},
	}, ref)
}

// refusedAnnotations is the CEL expression for the annotations that kata.CheckAnnotations refuses, less those that were there before.
func refusedAnnotations() string {
	var foreign, harmless []string
	for _, prefix := range kata.Foreign {
		foreign = append(foreign, "k.startsWith("+quote(prefix)+")")
	}
	for _, key := range kata.Harmless {
		harmless = append(harmless, quote(key))
	}
	return fmt.Sprintf("variables.annotations.filter(k, (%s || k.startsWith(%s) && !(k in [%s]) && !(k in params.data['%s'].split(' '))) && "+
		"!(variables.classBefore == variables.class && k in variables.before && variables.before[k] == variables.annotations[k]))",
		strings.Join(foreign, " || "), quote(kata.Prefix), strings.Join(harmless, ", "), annotationsKey)
}

// namespacesTwice is the policy for bindings that name a namespace which another names. Each other binding is a parameter.
func namespacesTwice() []any {
	return policy("metsuke-bindings", policySpec{
		FailurePolicy: "Ignore", ParamKind: &paramKind{profile.APIVersion, profile.KindBinding},
		MatchConstraints: matchConstraints{[]resourceRule{{[]string{"metsuke.dev"}, []string{"v1alpha1"}, createAndUpdate, []string{"profilebindings"}, "*"}}},
		Variables: []variable{
			{"twice", "params.metadata.name == object.metadata.name ? [] : object.spec.namespaces.filter(n, n in params.spec.namespaces && " +
				"(oldObject == null || !(n in oldObject.spec.namespaces)))"},
		},
		Validations: []validation{{
			Expression:        "size(variables.twice) == 0",
			Message:           "another binding names one of the namespaces",
			MessageExpression: "'namespace ' + variables.twice[0] + ' already has the binding ' + params.metadata.name + '; expected one binding for it'",
		}},
	}, &paramRef{Selector: &struct{}{}, ParameterNotFoundAction: "Allow"})
}

// profileInUse is the policy for the deletion of profiles that something in force refers to.
func profileInUse() []any {
	return policy("metsuke-profiles-in-use", policySpec{
		FailurePolicy:    "Ignore",
		MatchConstraints: matchConstraints{[]resourceRule{{[]string{"metsuke.dev"}, []string{"v1alpha1"}, []string{"DELETE"}, []string{"agentprofiles"}, "*"}}},
		Validations: []validation{{
			Expression:        "!has(oldObject.status) || !has(oldObject.status.usedBy) || size(oldObject.status.usedBy) == 0",
			Message:           "the profile is in use",
			MessageExpression: "'the profile is used by ' + oldObject.status.usedBy.join(', ') + '; change them first'",
			Reason:            "Forbidden",
		}},
	}, nil)
}

func quote(s string) string { return "'" + s + "'" }
