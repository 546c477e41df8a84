// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

func TestRound(t *testing.T) {
	coder := accepts(profile.KindProfile, "coder", 1, base)
	s := &snapshot{
		documents: []*v1alpha1.Document{document(profile.KindProfile, "coder", 1, base), document(profile.KindProfile, "bad", 1, broken)},
		accepted:  []*v1alpha1.AcceptedDocument{coder},
		nodes:     []*metav1.PartialObjectMetadata{node("a", nil), node("b", nil), node("c", nil), node("d", nil)},
		agentNodes: []*v1alpha1.AgentNode{
			reports("a", noon, v1alpha1.ProfilesStatus{Digest: digest(coder)}, v1alpha1.HandlerStatus{Name: "metsuke-runc", Ready: true}, v1alpha1.HandlerStatus{Name: "metsuke-kata"}),
			reports("b", noon, v1alpha1.ProfilesStatus{Digest: digest(), Refused: "why"}),
			reports("c", noon.Add(-time.Hour), v1alpha1.ProfilesStatus{Digest: digest(coder)}), // silent
			reports("gone", noon, v1alpha1.ProfilesStatus{Digest: digest(coder)}),              // of no node
		},
	}
	p := plans(t, &Controller{}, s)
	p.failures = 2
	want := Round{
		Took: time.Second, Failures: 2, Accepted: map[string]int{profile.KindProfile: 1}, Refused: map[string]int{profile.KindProfile: 1},
		Nodes: 4, Reporting: 2, Acknowledged: 1, Refusing: 1, Ready: map[string]int{"metsuke-runc": 1},
	}
	if diff := cmp.Diff(want, round(s, fresh(s), p, time.Second)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	undecided := round(s, fresh(s), &plan{}, time.Second)
	if undecided.Accepted != nil || undecided.Acknowledged != 0 || undecided.Reporting != 2 {
		t.Errorf("%+v", undecided)
	}
}
