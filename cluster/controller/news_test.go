// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

func TestNews(t *testing.T) {
	now := time.Now()
	at := func(heartbeat time.Time, digest string, handlers ...v1alpha1.HandlerStatus) *v1alpha1.AgentNode {
		return reports("n", heartbeat, v1alpha1.ProfilesStatus{Digest: digest}, handlers...)
	}
	before := at(now.Add(-5*time.Minute), "a")
	for name, tt := range map[string]struct {
		before, after *v1alpha1.AgentNode
		want          bool
	}{
		"a heartbeat":                 {before, at(now, "a"), false},
		"another set":                 {before, at(now, "b"), true},
		"a handler":                   {before, at(now, "a", v1alpha1.HandlerStatus{Name: "metsuke-runc"}), true},
		"one that was silent is back": {at(now.Add(-Freshness-time.Minute), "a"), at(now, "a"), true},
		"a clock that is far ahead":   {before, at(now.Add(Freshness+time.Minute), "a"), true},
		"still silent":                {at(now.Add(-Freshness-time.Minute), "a"), at(now.Add(-Freshness-time.Second), "a"), false},
	} {
		if got := reportNews(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	old := node("n", map[string]string{"a": "b"})
	other := node("n", map[string]string{"a": "b"})
	other.UID = "of another"
	for name, tt := range map[string]struct {
		after *metav1.PartialObjectMetadata
		want  bool
	}{
		"a kubelet's heartbeat":    {node("n", map[string]string{"a": "b"}), false},
		"a label":                  {node("n", map[string]string{"a": "c"}), true},
		"another node of the name": {other, true},
	} {
		if got := labelNews(old, tt.after); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Decisions are those of package acceptance, whatever was decided before, and one that is remembered is not made again.
func TestDecisions(t *testing.T) {
	version := func(generation int64, spec string) *acceptance.Version {
		return &acceptance.Version{Generation: generation, Spec: json.RawMessage(spec)}
	}
	object := func(name string, wanted, inForce *acceptance.Version) acceptance.Object {
		return acceptance.Object{Key: acceptance.Key{Kind: profile.KindProfile, Name: name}, Wanted: wanted, InForce: inForce}
	}
	var d decisions
	for i, objects := range [][]acceptance.Object{
		{object("b", version(1, base), nil), object("a", version(1, base), nil)},
		{object("a", version(1, base), version(1, base)), object("b", version(1, base), version(1, base))},
		{object("a", version(2, broken), version(1, base)), object("b", version(1, base), version(1, base))},
		{object("a", version(3, base), version(1, base)), object("b", nil, version(1, base))},
		{object("a", version(3, base), version(1, base))},
		{},
	} {
		for range 2 {
			got, err := d.of(slices.Clone(objects))
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(objects, func(a, b acceptance.Object) int { return len(a.Name) - len(b.Name) + int(a.Name[0]) - int(b.Name[0]) })
			want, err := acceptance.Decide(objects)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%+v", said(got)) != fmt.Sprintf("%+v", said(want)) {
				t.Errorf("%d: %+v, want %+v", i, said(got), said(want))
			}
			again, _ := d.of(slices.Clone(objects))
			if len(again) > 0 && &again[0] != &got[0] {
				t.Errorf("%d: it was decided again", i)
			}
		}
	}
}

// said is what verdicts say, without pointers.
func said(verdicts []acceptance.Verdict) []string {
	var out []string
	for _, v := range verdicts {
		generation := int64(0)
		if v.InForce != nil {
			generation = v.InForce.Generation
		}
		out = append(out, fmt.Sprint(v.Key, generation, v.Refused != nil, v.Digest, v.UsedBy))
	}
	return out
}

// A round writes some of what nodes need, so that it ends soon; the next follows at once.
func TestSomeNodesARound(t *testing.T) {
	var p plan
	if got := some(make([]int, maxNodes), &p, noon); len(got) != maxNodes || !p.next.IsZero() {
		t.Errorf("%d of as many as a round takes, the next at %v", len(got), p.next)
	}
	all := make([]int, maxNodes+1)
	for i := range all {
		all[i] = i
	}
	first := some(all, &p, noon)
	if len(first) != maxNodes || !p.next.Equal(noon) {
		t.Errorf("%d of one more, the next at %v", len(first), p.next)
	}
	if slices.IsSorted(first) {
		t.Error("they are always the same ones")
	}
}
