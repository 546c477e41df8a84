// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// The cluster of BenchmarkRound.
const (
	manyNodes     = 15_000
	manyDocuments = 200 // half of them profiles
)

// many is a controller that has listed a large cluster in which nothing is left to do.
func many(b *testing.B) *cluster {
	b.Helper()
	logrus.SetOutput(io.Discard)
	c := newCluster(b)
	add := func(store interface{ Add(any) error }, object any) {
		if err := store.Add(object); err != nil {
			b.Fatal(err)
		}
	}
	var inForce []*v1alpha1.AcceptedDocument
	for i := range manyDocuments / 2 {
		profileName, binding := fmt.Sprintf("profile-%03d", i), fmt.Sprintf("binding-%03d", i)
		inForce = append(inForce,
			accepts(profile.KindProfile, profileName, 1, `{"extends":["baseline"],"seccomp":{"deny":[{"syscalls":["ptrace","bpf","mount"],"errno":"EPERM"}]},"limits":{"pids":256}}`),
			accepts(profile.KindBinding, binding, 1, fmt.Sprintf(`{"default":"%s","namespaces":["team-%03d"]}`, profileName, i)))
	}
	for _, a := range inForce {
		add(c.accepted.GetStore(), a)
		d := document(a.Spec.Kind, a.Spec.Name, 1, string(a.Spec.Document))
		add(c.documents[map[string]int{profile.KindProfile: 0, profile.KindBinding: 1}[d.Kind]].GetStore(), d)
	}
	digest := digest(inForce...)
	for i := range manyNodes {
		name := fmt.Sprintf("node-%05d", i)
		add(c.agentNodes.GetStore(), reports(name, noon, v1alpha1.ProfilesStatus{Digest: digest}, v1alpha1.HandlerStatus{Name: "metsuke-runc", Ready: true}))
		add(c.nodes.GetStore(), node(name, map[string]string{v1alpha1.HandlerLabel + "metsuke-runc": v1alpha1.Ready}))
	}
	c.settle(b)
	return c
}

// settle stores the statuses that a round would write, as the informers would bring them back.
func (c *cluster) settle(b *testing.B) {
	b.Helper()
	p := &plan{}
	s := c.snapshot(noon)
	if err := c.decide(s, fresh(s), p); err != nil {
		b.Fatal(err)
	}
	for _, d := range p.statuses {
		for i, kind := range []string{profile.KindProfile, profile.KindBinding} {
			if d.Kind == kind {
				if err := c.documents[i].GetStore().Update(d); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkRound is a round in a cluster of 15,000 nodes and 200 documents, in which one thing happened since the round before.
func BenchmarkRound(b *testing.B) {
	c := many(b)
	now := noon
	round := func(b *testing.B) {
		now = now.Add(time.Millisecond)
		c.round(b.Context(), now)
		writes := 0
		for _, action := range c.client.Actions() {
			if action.GetVerb() != "get" {
				writes++
			}
		}
		if writes > 1 { // the ConfigMap is made once
			b.Fatalf("%d writes where nothing was to be written", writes)
		}
		c.client.ClearActions()
	}
	b.Run("heartbeat", func(b *testing.B) {
		for b.Loop() {
			round(b)
		}
	})
	b.Run("profile", func(b *testing.B) { // refused: so nothing is written
		for i := 0; b.Loop(); i++ {
			d := document(profile.KindProfile, "broken", int64(i+1), strings.Replace(broken, "-1", fmt.Sprint(-1-i), 1))
			if err := c.documents[0].GetStore().Add(d); err != nil {
				b.Fatal(err)
			}
			p := &plan{}
			s := c.snapshot(now)
			reports := fresh(s)
			if err := c.decide(s, reports, p); err != nil {
				b.Fatal(err)
			}
			label(s, reports, p)
		}
	})
}
