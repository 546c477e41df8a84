// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// reportedDigest is the digest that a report, a JSON patch of a status, says is in force.
func reportedDigest(r *http.Request) (string, error) {
	if r.GetBody == nil {
		return "", errNoReport
	}
	body, err := r.GetBody()
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	var patch []struct {
		Value v1alpha1.AgentNodeStatus `json:"value"`
	}
	if err := json.NewDecoder(body).Decode(&patch); err != nil || len(patch) != 1 {
		return "", errNoReport
	}
	return patch[0].Value.Profiles.Digest, nil
}

// seen is when an object was first as it is to be.
func seen[T any](ctx context.Context, client dynamic.Interface, r schema.GroupVersionResource, name string, is func(*T) bool) (time.Time, error) {
	watch, err := client.Resource(r).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return time.Time{}, err
	}
	defer watch.Stop()
	for {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for %s %s: %w", r.Resource, name, context.Cause(ctx))
		case event, ok := <-watch.ResultChan():
			if !ok {
				return time.Time{}, fmt.Errorf("the watch of %s %s has ended", r.Resource, name)
			}
			u, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				return time.Time{}, fmt.Errorf("watch %s %s: %v", r.Resource, name, event.Object)
			}
			at := time.Now()
			v, err := v1alpha1.Decode[T](u)
			if err != nil {
				return time.Time{}, err
			}
			if is(v) {
				return at, nil
			}
		}
	}
}
