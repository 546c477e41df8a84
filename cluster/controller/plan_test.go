// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func document(kind, name string, generation int64, spec string) *v1alpha1.Document {
	d := &v1alpha1.Document{Spec: json.RawMessage(spec)}
	d.Kind, d.Name, d.UID, d.Generation = kind, name, types.UID(kind+name), generation
	return d
}

func accepts(kind, name string, generation int64, spec string) *v1alpha1.AcceptedDocument {
	a := &v1alpha1.AcceptedDocument{Spec: v1alpha1.AcceptedSpec{Kind: kind, Name: name, Generation: generation, Document: json.RawMessage(spec)}}
	a.Name, a.ResourceVersion = v1alpha1.AcceptedName(kind, name), "7"
	return a
}

func reports(name string, heartbeat time.Time, profiles v1alpha1.ProfilesStatus, handlers ...v1alpha1.HandlerStatus) *v1alpha1.AgentNode {
	n := &v1alpha1.AgentNode{Status: v1alpha1.AgentNodeStatus{Heartbeat: metav1.NewTime(heartbeat), Profiles: profiles, Handlers: handlers}}
	n.Name = name
	return n
}

func node(name string, labels map[string]string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Labels: labels}}
}

const (
	base   = `{"extends":["baseline"]}`
	broken = `{"limits":{"pids":-1}}`
	toA    = `{"default":"coder","namespaces":["a"]}`
)

func digest(versions ...*v1alpha1.AcceptedDocument) string {
	set := map[acceptance.Key]*acceptance.Version{}
	for _, a := range versions {
		set[acceptance.Key{Kind: a.Spec.Kind, Name: a.Spec.Name}] = version(a)
	}
	return acceptance.Digest(set)
}

func plans(t *testing.T, c *Controller, s *snapshot) *plan {
	t.Helper()
	p := &plan{}
	if s.now.IsZero() {
		s.now = noon
	}
	if err := c.decide(s, fresh(s), p); err != nil {
		t.Fatal(err)
	}
	label(s, fresh(s), p)
	return p
}

// The documents' part of a plan, in short.
func short(p *plan) string {
	var words []string
	for _, a := range p.accept {
		words = append(words, fmt.Sprintf("+%s@%d", a.Name, a.Spec.Generation))
	}
	for _, a := range p.withdraw {
		words = append(words, "-"+a.Name)
	}
	return strings.Join(words, " ")
}

func TestDocuments(t *testing.T) {
	const coder, a = profile.KindProfile, profile.KindBinding
	deleted := func(d *v1alpha1.Document) *v1alpha1.Document {
		d.DeletionTimestamp = &metav1.Time{Time: noon}
		return d
	}
	for name, tt := range map[string]struct {
		s        snapshot
		want     string
		accepted string // status, reason and message of each document's Accepted
	}{
		"the first versions, profiles before bindings": {
			s:        snapshot{documents: []*v1alpha1.Document{document(a, "a", 1, toA), document(coder, "coder", 3, base)}},
			want:     "+agentprofile.coder@3 +profilebinding.a@1",
			accepted: "True Valid this version is in force|True Valid this version is in force",
		},
		"all as it is": {
			s:        snapshot{documents: []*v1alpha1.Document{document(coder, "coder", 3, base)}, accepted: []*v1alpha1.AcceptedDocument{accepts(coder, "coder", 3, base)}},
			accepted: "True Valid this version is in force",
		},
		"an invalid new version": {
			s:        snapshot{documents: []*v1alpha1.Document{document(coder, "coder", 4, broken)}, accepted: []*v1alpha1.AcceptedDocument{accepts(coder, "coder", 3, base)}},
			accepted: "False Invalid the version before stays in force: AgentProfile/coder: spec.limits.pids: ",
		},
		"an invalid first version": {
			s:        snapshot{documents: []*v1alpha1.Document{document(coder, "coder", 1, broken)}},
			accepted: "False Invalid no version is in force: AgentProfile/coder: spec.limits.pids: ",
		},
		"a profile that is gone and in use": {
			s: snapshot{documents: []*v1alpha1.Document{document(a, "a", 1, toA)},
				accepted: []*v1alpha1.AcceptedDocument{accepts(coder, "coder", 3, base), accepts(a, "a", 1, toA)}},
			accepted: "True Valid this version is in force",
		},
		"a profile that is going and in use": {
			s: snapshot{documents: []*v1alpha1.Document{deleted(document(coder, "coder", 3, base)), document(a, "a", 1, toA)},
				accepted: []*v1alpha1.AcceptedDocument{accepts(coder, "coder", 3, base), accepts(a, "a", 1, toA)}},
			accepted: "False InUse the version before stays in force: it is in use: ProfileBinding/a: spec.default: |True Valid this version is in force",
		},
		"a profile that is gone": {
			s:    snapshot{accepted: []*v1alpha1.AcceptedDocument{accepts(coder, "coder", 3, base)}},
			want: "-agentprofile.coder",
		},
		"a profile and its binding that are gone": {
			s:    snapshot{accepted: []*v1alpha1.AcceptedDocument{accepts(a, "a", 1, toA), accepts(coder, "coder", 3, base)}},
			want: "-profilebinding.a -agentprofile.coder",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plans(t, &Controller{}, &tt.s)
			if got := short(p); got != tt.want {
				t.Errorf("the plan is %q, want %q", got, tt.want)
			}
			told := map[types.UID]string{}
			for _, d := range p.statuses {
				c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.Accepted)
				told[d.UID] = fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
			}
			for i, want := range strings.Split(tt.accepted, "|") {
				if want == "" {
					continue
				}
				if got := told[tt.s.documents[i].UID]; !strings.HasPrefix(got, want) {
					t.Errorf("%s is told %q, want %q", tt.s.documents[i].Name, got, want)
				}
			}
			for _, a := range p.accept {
				if a.ResourceVersion != "" && len(tt.s.accepted) == 0 {
					t.Errorf("%s is made with the resource version %q", a.Name, a.ResourceVersion)
				}
			}
		})
	}
}

// What has been written once is not written again.
func TestSettles(t *testing.T) {
	c := &Controller{}
	s := &snapshot{documents: []*v1alpha1.Document{document(profile.KindProfile, "coder", 1, base), document(profile.KindBinding, "a", 1, toA)}}
	p := plans(t, c, s)
	if len(p.statuses) != 2 || p.statuses[0].Status.InForce.Digest == "" || fmt.Sprint(p.statuses[0].Status.UsedBy) != "[ProfileBinding/a]" {
		t.Fatalf("the first plan has the statuses %+v", p.statuses)
	}
	s = &snapshot{documents: p.statuses, accepted: p.accept, now: noon.Add(time.Hour)}
	if p := plans(t, c, s); short(p) != "" || len(p.statuses) != 0 || !p.next.IsZero() {
		t.Errorf("the second plan is %+v", p)
	}
}

func TestCounts(t *testing.T) {
	old, current := accepts(profile.KindProfile, "coder", 1, `{}`), accepts(profile.KindProfile, "coder", 2, base)
	at := func(d string) v1alpha1.ProfilesStatus { return v1alpha1.ProfilesStatus{Digest: d} }
	c := &Controller{}
	plans(t, c, &snapshot{documents: []*v1alpha1.Document{document(profile.KindProfile, "coder", 1, `{}`)}, accepted: []*v1alpha1.AcceptedDocument{old}})
	s := &snapshot{
		documents: []*v1alpha1.Document{document(profile.KindProfile, "coder", 2, base)},
		accepted:  []*v1alpha1.AcceptedDocument{old},
		agentNodes: []*v1alpha1.AgentNode{
			reports("has it", noon, at(digest(current))),
			reports("has it and more that nobody knows", noon, at("of another set")),
			reports("has the old one", noon, at(digest(old))),
			reports("refuses", noon, v1alpha1.ProfilesStatus{Digest: digest(old), Refused: "the floor is gone"}),
			reports("refuses what came later", noon, v1alpha1.ProfilesStatus{Digest: digest(current), Refused: "x"}),
			reports("silent", noon.Add(-Freshness-time.Second), at(digest(current))),
			reports("from the future", noon.Add(Freshness+time.Second), at(digest(current))),
		},
	}
	p := plans(t, c, s)
	if len(p.statuses) != 1 {
		t.Fatalf("the statuses are %+v", p.statuses)
	}
	d := p.statuses[0]
	if want := (v1alpha1.NodeCounts{Total: 5, Acknowledged: 2, Refused: 1}); d.Status.Nodes != want {
		t.Errorf("the counts are %+v, want %+v", d.Status.Nodes, want)
	}
	if r := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.RolledOut); r.Reason != "Refused" || r.Status != metav1.ConditionFalse {
		t.Errorf("rolled out: %+v", r)
	}

	// Soon after, a count waits; later it does not.
	s.documents, s.accepted = p.statuses, p.accept
	s.agentNodes = []*v1alpha1.AgentNode{reports("has it", noon, at(digest(current)))}
	s.now = noon.Add(time.Second)
	if p = plans(t, c, s); len(p.statuses) != 0 || !p.next.Equal(noon.Add(betweenCounts)) {
		t.Errorf("after a second: %+v", p)
	}
	s.now = p.next
	p = plans(t, c, s)
	if len(p.statuses) != 1 || p.statuses[0].Status.Nodes != (v1alpha1.NodeCounts{Total: 1, Acknowledged: 1}) {
		t.Fatalf("later: %+v", p)
	}
	if r := meta.FindStatusCondition(p.statuses[0].Status.Conditions, v1alpha1.RolledOut); r.Status != metav1.ConditionTrue {
		t.Errorf("rolled out: %+v", r)
	}
}

func TestLabels(t *testing.T) {
	is := func(name string, ready bool) v1alpha1.HandlerStatus {
		return v1alpha1.HandlerStatus{Name: name, Ready: ready}
	}
	crowd := make([]v1alpha1.HandlerStatus, 0, maxHandlers+1)
	for i := range maxHandlers + 1 {
		crowd = append(crowd, is(fmt.Sprintf("h%d", i), true))
	}
	const l = v1alpha1.HandlerLabel
	for name, tt := range map[string]struct {
		labels   map[string]string
		report   *v1alpha1.AgentNode
		want     string // the change
		wantMany int
	}{
		"ready":               {report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("metsuke-runc", true)), want: "metsuke-runc=ready"},
		"ready as before":     {labels: map[string]string{l + "a": "ready", "other": "x"}, report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("a", true))},
		"another value":       {labels: map[string]string{l + "a": "READY"}, report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("a", true)), want: "a=ready"},
		"not ready any more":  {labels: map[string]string{l + "a": "ready"}, report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("a", false)), want: "a=-"},
		"named twice":         {labels: map[string]string{l + "a": "ready"}, report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("a", true), is("a", false)), want: "a=-"},
		"no handler any more": {labels: map[string]string{l + "a": "ready"}, report: reports("n", noon, v1alpha1.ProfilesStatus{}), want: "a=-"},
		"silent":              {labels: map[string]string{l + "a": "ready"}, report: reports("n", noon.Add(-time.Hour), v1alpha1.ProfilesStatus{}, is("a", true)), want: "a=-"},
		"no agent":            {labels: map[string]string{l + "a": "ready", l + "b": "ready"}, want: "a=- b=-"},
		"no label":            {report: reports("n", noon, v1alpha1.ProfilesStatus{}, is("a/b", true), is("", true), is("-", true), is(strings.Repeat("x", 64), true))},
		"too many":            {report: reports("n", noon, v1alpha1.ProfilesStatus{}, crowd...), wantMany: maxHandlers},
	} {
		t.Run(name, func(t *testing.T) {
			s := &snapshot{nodes: []*metav1.PartialObjectMetadata{node("n", tt.labels)}}
			if tt.report != nil {
				s.agentNodes = []*v1alpha1.AgentNode{tt.report}
			}
			p := plans(t, &Controller{}, s)
			var words []string
			for _, change := range p.labels {
				if change.node != "n" || change.uid != "uid-n" {
					t.Errorf("the change is of %s (%s)", change.node, change.uid)
				}
				if len(change.labels) == tt.wantMany {
					continue
				}
				for _, handler := range []string{"a", "b", "metsuke-runc"} {
					switch value, ok := change.labels[l+handler]; {
					case ok && value == nil:
						words = append(words, handler+"=-")
					case ok:
						words = append(words, handler+"="+*value)
					}
				}
			}
			if got := strings.Join(words, " "); got != tt.want {
				t.Errorf("the change is %q, want %q", got, tt.want)
			}
			if tt.report != nil && len(p.stale) != 0 {
				t.Errorf("stale: %v", p.stale)
			}
		})
	}
}

// The AgentNode of a node that is gone goes too, and a label is looked at again when its report would be too old.
func TestStale(t *testing.T) {
	s := &snapshot{
		nodes:      []*metav1.PartialObjectMetadata{node("there", nil)},
		agentNodes: []*v1alpha1.AgentNode{reports("there", noon, v1alpha1.ProfilesStatus{}), reports("gone", noon, v1alpha1.ProfilesStatus{})},
	}
	p := plans(t, &Controller{}, s)
	if len(p.stale) != 1 || p.stale[0].Name != "gone" {
		t.Errorf("stale: %v", p.stale)
	}
	if want := noon.Add(Freshness + time.Second); !p.next.Equal(want) {
		t.Errorf("the next look is at %v, want %v", p.next, want)
	}
}
