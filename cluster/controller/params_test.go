// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/admission"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

func inForce(binding string) map[acceptance.Key]*acceptance.Version {
	return map[acceptance.Key]*acceptance.Version{
		{Kind: profile.KindProfile, Name: "coder"}: {Generation: 1, Spec: []byte(base)},
		{Kind: profile.KindBinding, Name: "a"}:     {Generation: 1, Spec: []byte(binding)},
	}
}

// admitted is the data of the ConfigMap, nil if there is none.
func (c *cluster) admitted(t *testing.T) map[string]string {
	t.Helper()
	object, err := c.params.client.Get(t.Context(), admission.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	configMap, err := v1alpha1.Decode[corev1.ConfigMap](object)
	if err != nil {
		t.Fatal(err)
	}
	return configMap.Data
}

func TestParamsFollowWhatIsInForce(t *testing.T) {
	c := newCluster(t)
	keep := func(binding string, now time.Time, want map[string]string) {
		t.Helper()
		versions := inForce(binding)
		if err := c.params.keep(t.Context(), versions, acceptance.Digest(versions), now); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.admitted(t)); diff != "" {
			t.Errorf("at %v (-want +got):\n%s", now, diff)
		}
	}
	first := map[string]string{"_default": "baseline", "_annotations": "", "a": "a", "_allowed_a": "coder"}
	second := map[string]string{"_default": "baseline", "_annotations": "", "b": "a", "_allowed_a": "", "_choose_a": ""}
	keep(toA, noon, first)
	keep(toA, noon, first)
	keep(`{"namespaces":["b"]}`, noon, second)

	// What somebody changed is put right when it is looked at again, and its other parts are kept.
	object, err := c.params.client.Get(t.Context(), admission.ConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	object.Object["data"] = map[string]any{"b": "other"}
	object.SetLabels(map[string]string{"x": "y"})
	if _, err := c.params.client.Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	keep(`{"namespaces":["b"]}`, noon.Add(paramsChecked-1), map[string]string{"b": "other"})
	keep(`{"namespaces":["b"]}`, noon.Add(paramsChecked), second)
	if object, err = c.params.client.Get(t.Context(), admission.ConfigMap, metav1.GetOptions{}); err != nil || object.GetLabels()["x"] != "y" {
		t.Errorf("labels %v, %v", object.GetLabels(), err)
	}
}

// A round keeps the ConfigMap, and comes back for it.
func TestRoundKeepsParams(t *testing.T) {
	c := newCluster(t)
	failing := errors.New("etcd is away")
	c.client.PrependReactor("create", configMaps.Resource, func(clienttesting.Action) (bool, runtime.Object, error) { return failing != nil, nil, failing })
	next := c.round(t.Context(), noon)
	if want := noon.Add(afterFailure); !next.Equal(want) || c.admitted(t) != nil {
		t.Errorf("the next round is at %v, want %v", next, want)
	}
	failing = nil
	if next, want := c.round(t.Context(), next), next.Add(paramsChecked); !next.Equal(want) {
		t.Errorf("the next round is at %v, want %v", next, want)
	}
	if got := c.admitted(t); got["_default"] != profile.Baseline {
		t.Errorf("got %v", got)
	}
}
