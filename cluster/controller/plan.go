// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// snapshot is what the API server's objects say at one moment.
type snapshot struct {
	now        time.Time
	documents  []*v1alpha1.Document
	accepted   []*v1alpha1.AcceptedDocument
	agentNodes []*v1alpha1.AgentNode
	nodes      []*metav1.PartialObjectMetadata // corev1.Node
}

// plan is what to write, in this order. What fails is planned again from the next snapshot.
type plan struct {
	// What comes into force, profiles before bindings, and then what goes, bindings before profiles.
	accept   []*v1alpha1.AcceptedDocument
	withdraw []*v1alpha1.AcceptedDocument
	statuses []*v1alpha1.Document // with status as it is to be, once all of the above is stored
	labels   []nodeLabels
	stale    []*v1alpha1.AgentNode // of nodes that are gone
	// inForce are the versions in force once all of the above is stored; nil: nobody knows.
	inForce map[acceptance.Key]*acceptance.Version
	digest  string // acceptance.Digest of inForce
	// refused are the documents of which what is wanted is not in force.
	refused map[acceptance.Key]bool
	// failures is how many of the writes failed.
	failures int
	// next is when to look again, if nothing happens until then; zero: never.
	next time.Time
}

// decide plans what follows from the documents, with the fresh reports, and remembers which set that makes.
func (c *Controller) decide(s *snapshot, reports map[string]*v1alpha1.AgentNode, p *plan) error {
	objects, accepted := s.objects()
	verdicts, err := c.decisions.of(objects)
	if err != nil {
		return err
	}
	inForce := map[acceptance.Key]*acceptance.Version{}
	for _, v := range verdicts {
		old := accepted[v.Key]
		switch {
		case v.InForce != nil:
			inForce[v.Key] = v.InForce
			if next := acceptedDocument(old, v); old == nil || !bytes.Equal(old.Spec.Document, next.Spec.Document) {
				p.accept = append(p.accept, next)
			}
		case old != nil:
			p.withdraw = append(p.withdraw, old)
		}
	}
	slices.SortFunc(p.accept, func(a, b *v1alpha1.AcceptedDocument) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.withdraw, func(a, b *v1alpha1.AcceptedDocument) int { return cmp.Compare(b.Name, a.Name) })
	p.inForce, p.digest = inForce, acceptance.Digest(inForce)
	marks := mark(verdicts)
	c.sets.add(p.digest, marks)
	counts := c.count(reports, marks)
	byKey := map[acceptance.Key]acceptance.Verdict{}
	p.refused = map[acceptance.Key]bool{}
	for _, v := range verdicts {
		byKey[v.Key] = v
		p.refused[v.Key] = v.Refused != nil
	}
	for _, d := range s.documents {
		v := byKey[key(d)]
		changed := *d
		changed.Status = c.status(d, v, counts[v.Key], s.now, p)
		if !equality.Semantic.DeepEqual(changed.Status, d.Status) {
			p.statuses = append(p.statuses, &changed)
		}
	}
	c.pace.forget(s.documents)
	return nil
}

// objects joins documents and what is in force of them. A document that is being deleted is wanted no more, nor is one that is gone.
func (s *snapshot) objects() (objects []acceptance.Object, accepted map[acceptance.Key]*v1alpha1.AcceptedDocument) {
	accepted = map[acceptance.Key]*v1alpha1.AcceptedDocument{}
	for _, a := range s.accepted {
		accepted[acceptance.Key{Kind: a.Spec.Kind, Name: a.Spec.Name}] = a
	}
	there := map[acceptance.Key]bool{}
	for _, d := range s.documents {
		o := acceptance.Object{Key: key(d), Created: d.CreationTimestamp.Time}
		if d.DeletionTimestamp == nil {
			o.Wanted = &acceptance.Version{Generation: d.Generation, Spec: d.Spec}
		}
		if a := accepted[o.Key]; a != nil {
			o.InForce = version(a)
		}
		objects, there[o.Key] = append(objects, o), true
	}
	for key, a := range accepted {
		if !there[key] {
			objects = append(objects, acceptance.Object{Key: key, Created: a.CreationTimestamp.Time, InForce: version(a)})
		}
	}
	return objects, accepted
}

func version(a *v1alpha1.AcceptedDocument) *acceptance.Version {
	return &acceptance.Version{Generation: a.Spec.Generation, Spec: a.Spec.Document}
}

func acceptedDocument(old *v1alpha1.AcceptedDocument, v acceptance.Verdict) *v1alpha1.AcceptedDocument {
	a := &v1alpha1.AcceptedDocument{}
	if old != nil {
		*a = *old
	}
	a.APIVersion, a.Kind = v1alpha1.GroupVersion.String(), v1alpha1.KindAcceptedDocument
	a.Name = v1alpha1.AcceptedName(v.Kind, v.Name)
	a.Spec = v1alpha1.AcceptedSpec{Kind: v.Kind, Name: v.Name, Generation: v.InForce.Generation, Document: v.InForce.Spec}
	return a
}

func key(d *v1alpha1.Document) acceptance.Key { return acceptance.Key{Kind: d.Kind, Name: d.Name} }

// status is the document's status as the verdict has it.
func (c *Controller) status(d *v1alpha1.Document, v acceptance.Verdict, n v1alpha1.NodeCounts, now time.Time, p *plan) v1alpha1.DocumentStatus {
	s := v1alpha1.DocumentStatus{ObservedGeneration: d.Generation, Conditions: slices.Clone(d.Status.Conditions)}
	if v.InForce != nil {
		s.InForce = &v1alpha1.InForce{Generation: v.InForce.Generation, Digest: v.Digest}
	}
	for _, user := range v.UsedBy {
		s.UsedBy = append(s.UsedBy, user.String())
	}
	s.Nodes = c.pace.counts(d, s.InForce, n, now, p)
	set(&s, accepted(d, v), now)
	set(&s, rolledOut(d, s.Nodes, v.InForce != nil), now)
	return s
}

func set(s *v1alpha1.DocumentStatus, condition metav1.Condition, now time.Time) {
	condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second)) // kept by SetStatusCondition where the status stays
	meta.SetStatusCondition(&s.Conditions, condition)
}

// maxMessage bounds what a condition says, in bytes; the API's own bound is 32768.
const maxMessage = 4096

func accepted(d *v1alpha1.Document, v acceptance.Verdict) metav1.Condition {
	condition := metav1.Condition{Type: v1alpha1.Accepted, ObservedGeneration: d.Generation}
	switch {
	case v.Refused == nil:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "Valid", "this version is in force"
		return condition
	case d.DeletionTimestamp != nil:
		condition.Reason = "InUse"
	default:
		condition.Reason = "Invalid"
	}
	condition.Status = metav1.ConditionFalse
	condition.Message = bounded(message(v))
	return condition
}

func message(v acceptance.Verdict) string {
	if v.InForce == nil {
		return "no version is in force: " + v.Refused.Error()
	}
	return "the version before stays in force: " + v.Refused.Error()
}

func bounded(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

func rolledOut(d *v1alpha1.Document, n v1alpha1.NodeCounts, inForce bool) metav1.Condition {
	condition := metav1.Condition{Type: v1alpha1.RolledOut, ObservedGeneration: d.Generation, Status: metav1.ConditionFalse}
	switch {
	case !inForce:
		condition.Reason, condition.Message = "NotInForce", "no version is in force"
	case n.Refused > 0:
		condition.Reason, condition.Message = "Refused", "some nodes keep an older set, see their AgentNode"
	case n.Acknowledged < n.Total:
		condition.Reason, condition.Message = "RollingOut", "not every node has acknowledged what is in force yet"
	default:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "AllNodes", "every node that reports has acknowledged what is in force"
	}
	return condition
}
