// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// Of more sets than are kept the oldest is forgotten, and one that comes back is the newest again.
func TestSets(t *testing.T) {
	var s sets
	for i := range maxSets {
		s.add(fmt.Sprint(i), nil)
	}
	s.add("0", nil)
	s.add(fmt.Sprint(maxSets), nil)
	for i, want := range map[int]bool{0: true, 1: false, 2: true, maxSets: true} {
		if _, got := s.byDigest[fmt.Sprint(i)]; got != want {
			t.Errorf("set %d is known: %v, want %v", i, got, want)
		}
	}
	if len(s.order) != maxSets || len(s.byDigest) != maxSets {
		t.Errorf("%d and %d sets are kept", len(s.order), len(s.byDigest))
	}
}

// The status of a new version never has the counts of the one before, however soon it follows; nor has that of a profile whose parent
// changed.
func TestCountsAreOfTheVersionInForce(t *testing.T) {
	c := &Controller{}
	parent, child := document(profile.KindProfile, "parent", 1, base), document(profile.KindProfile, "child", 1, `{"extends":["parent"]}`)
	s := &snapshot{documents: []*v1alpha1.Document{parent, child}, now: noon}
	s.accepted = plans(t, c, s).accept
	s.agentNodes = []*v1alpha1.AgentNode{reports("n", noon, v1alpha1.ProfilesStatus{Digest: digest(s.accepted...)})}
	everywhere := func(now time.Time, want v1alpha1.NodeCounts, status metav1.ConditionStatus) {
		t.Helper()
		s.now = now
		s.documents = plans(t, c, s).statuses
		if len(s.documents) != 2 {
			t.Fatalf("%d statuses are written", len(s.documents))
		}
		for _, d := range s.documents {
			if r := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.RolledOut); d.Status.Nodes != want || r.Status != status {
				t.Errorf("%s: %+v, rolled out: %s; want %+v, %s", d.Name, d.Status.Nodes, r.Status, want, status)
			}
		}
	}
	everywhere(noon.Add(betweenCounts), v1alpha1.NodeCounts{Total: 1, Acknowledged: 1}, metav1.ConditionTrue)
	for _, d := range s.documents {
		if d.Name == "parent" {
			d.Generation, d.Spec = 2, []byte(`{"extends":["baseline"],"limits":{"pids":7}}`)
		}
	}
	everywhere(s.now.Add(time.Second), v1alpha1.NodeCounts{Total: 1}, metav1.ConditionFalse)
}
