// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// apply writes the plan. The error joins what failed and will not be planned again by an event that is under way.
func (c *Controller) apply(ctx context.Context, p *plan, now time.Time) error {
	var errs []error
	wrote := func(err error) {
		c.beat()
		if err != nil {
			errs = append(errs, err)
			p.failures++
		}
	}
	for _, a := range p.accept {
		wrote(c.accept(ctx, a))
	}
	for _, a := range p.withdraw {
		wrote(c.remove(ctx, v1alpha1.AcceptedDocuments, &a.ObjectMeta))
	}
	if err := errors.Join(errs...); err != nil {
		return err // and no status says that it was stored
	}
	if p.inForce != nil {
		wrote(c.params.keep(ctx, p.inForce, p.digest, now))
		p.look(now.Add(paramsChecked))
	}
	for _, d := range p.statuses {
		wrote(c.tell(ctx, d))
	}
	for _, l := range some(p.labels, p, now) {
		wrote(c.label(ctx, l))
	}
	for _, n := range some(p.stale, p, now) {
		wrote(c.remove(ctx, v1alpha1.AgentNodes, &n.ObjectMeta))
	}
	return errors.Join(errs...)
}

// maxNodes is how many nodes' objects are written in one round. All of a large cluster would take minutes, in which no change of a
// document would be looked at.
const maxNodes = 400

// some returns as many of what there is to write as one round takes, at random, so that what cannot be written holds up nothing else.
// The others are planned again by a round at once.
func some[T any](all []T, p *plan, now time.Time) []T {
	if len(all) <= maxNodes {
		return all
	}
	p.look(now)
	all = slices.Clone(all)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // nobody gains by guessing it
	return all[:maxNodes]
}

// accept creates an AcceptedDocument, or replaces the version that the plan was made from.
func (c *Controller) accept(ctx context.Context, a *v1alpha1.AcceptedDocument) error {
	object, err := v1alpha1.Encode(a)
	if err != nil {
		return err
	}
	documents := c.client.Resource(v1alpha1.AcceptedDocuments)
	if a.ResourceVersion == "" {
		_, err = documents.Create(ctx, object, metav1.CreateOptions{})
	} else {
		_, err = documents.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.Name, err)
	}
	return nil
}

func (c *Controller) tell(ctx context.Context, d *v1alpha1.Document) error {
	resource := v1alpha1.AgentProfiles
	if d.Kind == profile.KindBinding {
		resource = v1alpha1.ProfileBindings
	}
	object, err := v1alpha1.Encode(d)
	if err != nil {
		return err
	}
	_, err = c.client.Resource(resource).UpdateStatus(ctx, object, metav1.UpdateOptions{})
	// Of a document that changed or went meanwhile the informer tells.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("status of %s %s: %w", d.Kind, d.Name, err)
	}
	return nil
}

func (c *Controller) label(ctx context.Context, l nodeLabels) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": l.uid, "labels": l.labels}})
	if err != nil {
		return err
	}
	_, err = c.metadata.Resource(nodes).Patch(ctx, l.node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("labels of node %s: %w", l.node, err)
	}
	return nil
}

// remove deletes this very object, and no other that has its name since.
func (c *Controller) remove(ctx context.Context, r schema.GroupVersionResource, meta *metav1.ObjectMeta) error {
	err := c.client.Resource(r).Delete(ctx, meta.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(meta.UID))})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s: %w", r.Resource, meta.Name, err)
	}
	return nil
}
