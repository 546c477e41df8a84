// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// The API server takes the definitions: structural schema, CEL and its costs included.
func TestDefinitionsAreValid(t *testing.T) {
	for kind, s := range servers(t) {
		for _, err := range s.validate() {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// oldest is the oldest Kubernetes for which the rules are written: the first with ValidatingAdmissionPolicy in its stable form.
var oldest = version.MajorMinor(1, 30)

func TestRulesCompileForTheOldestKubernetes(t *testing.T) {
	env := environment.MustBaseEnvSet(oldest, true)
	rules := 0
	var walk func(path string, s *schema.Structural)
	walk = func(path string, s *schema.Structural) {
		results, err := cel.Compile(s, model.SchemaDeclType(s, path == ""), celconfig.PerCallLimit, env, cel.NewExpressionsEnvLoader())
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for i, r := range results {
			rules++
			if r.Error != nil {
				t.Errorf("%s: %s: %v", path, s.XValidations[i].Rule, r.Error)
			}
		}
		for name, field := range s.Properties {
			walk(path+"."+name, &field)
		}
		if s.Items != nil {
			walk(path+"[]", s.Items)
		}
		if s.AdditionalProperties != nil {
			walk(path+".*", s.AdditionalProperties.Structural)
		}
	}
	for _, s := range servers(t) {
		walk("", s.schema)
	}
	if rules < 30 {
		t.Errorf("%d rules were seen", rules)
	}
}

// What the controller and the agents write is taken, and nothing of it is pruned.
func TestOwnObjects(t *testing.T) {
	meta := func(kind, name string) (metav1.TypeMeta, metav1.ObjectMeta) {
		return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind}, metav1.ObjectMeta{Name: name}
	}
	at := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	status := v1alpha1.DocumentStatus{
		ObservedGeneration: 3, InForce: &v1alpha1.InForce{Generation: 2, Digest: strings.Repeat("e", 64)}, UsedBy: []string{"ProfileBinding/team-a"},
		Nodes: v1alpha1.NodeCounts{Total: 12, Acknowledged: 11, Refused: 1},
		Conditions: []metav1.Condition{
			{Type: v1alpha1.Accepted, Status: metav1.ConditionFalse, ObservedGeneration: 3, LastTransitionTime: at, Reason: "Invalid", Message: "spec.limits.pids: 0 is below 1"},
			{Type: v1alpha1.RolledOut, Status: metav1.ConditionTrue, LastTransitionTime: at, Reason: "AllNodes"},
		},
	}
	var p, b v1alpha1.Document
	p.TypeMeta, p.ObjectMeta = meta(profile.KindProfile, "coder")
	p.Spec, p.Status = json.RawMessage(`{"extends":["baseline"]}`), status
	b.TypeMeta, b.ObjectMeta = meta(profile.KindBinding, "team-a")
	b.Spec, b.Status = json.RawMessage(`{"namespaces":["team-a"]}`), status
	var accepted v1alpha1.AcceptedDocument
	accepted.TypeMeta, accepted.ObjectMeta = meta(v1alpha1.KindAcceptedDocument, v1alpha1.AcceptedName(profile.KindProfile, "coder"))
	accepted.Spec = v1alpha1.AcceptedSpec{Kind: profile.KindProfile, Name: "coder", Generation: 3, Document: json.RawMessage(`{"limits":{"io":{"/dev/vda":{"readBPS":1}}}}`)}
	var node v1alpha1.AgentNode
	node.TypeMeta, node.ObjectMeta = meta(v1alpha1.KindAgentNode, "worker-1.example.com")
	node.Status = v1alpha1.AgentNodeStatus{
		Version: "v1.2.3", Heartbeat: at, Profiles: v1alpha1.ProfilesStatus{Digest: strings.Repeat("d", 64), Refused: "why"},
		Handlers: []v1alpha1.HandlerStatus{{Name: "metsuke-kata", Ready: true}, {Name: "metsuke-runc", Reason: "why"}},
		Endpoint: &v1alpha1.Endpoint{Address: "[fd00::1]:1234", Certificate: strings.Repeat("0a", 32)},
	}
	s := servers(t)
	for kind, v := range map[string]any{profile.KindProfile: &p, profile.KindBinding: &b, v1alpha1.KindAcceptedDocument: &accepted, v1alpha1.KindAgentNode: &node} {
		u, err := v1alpha1.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		delete(u.Object["metadata"].(map[string]any), "creationTimestamp")
		before := string(toJSON(t, u.Object))
		unknown := pruning.PruneWithOptions(u.Object, s[kind].schema, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
		if after := string(toJSON(t, u.Object)); len(unknown) > 0 || after != before {
			t.Errorf("%s: %v are unknown: %s became %s", kind, unknown, before, after)
		}
		validator, _, err := validation.NewSchemaValidator(s[kind].crd.Spec.Validation.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range validation.ValidateCustomResource(nil, u.Object, validator) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
