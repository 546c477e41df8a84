// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/profile"
)

// cluster is a controller on clients that keep objects in memory. They know neither generations nor preconditions.
type cluster struct {
	*Controller
	client   *dynamicfake.FakeDynamicClient
	metadata *metadatafake.FakeMetadataClient
}

func newCluster(t testing.TB, objects ...runtime.Object) *cluster {
	t.Helper()
	node := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "uid-n", Labels: map[string]string{"other": "x"}}}
	meta := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(meta); err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		client: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			v1alpha1.AgentProfiles:     profile.KindProfile + "List",
			v1alpha1.ProfileBindings:   profile.KindBinding + "List",
			v1alpha1.AcceptedDocuments: v1alpha1.KindAcceptedDocument + "List",
			v1alpha1.AgentNodes:        v1alpha1.KindAgentNode + "List",
		}, objects...),
		metadata: metadatafake.NewSimpleMetadataClient(meta, node),
	}
	var err error
	if c.Controller, err = New(c.client, c.metadata, Options{Namespace: "metsuke-system"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	// These clients have no resource versions: what is written between an informer's list and its watch is told to nobody, ever.
	for watches := 0; watches < len(c.documents)+3; time.Sleep(time.Millisecond) {
		watches = 0
		for _, action := range slices.Concat(c.client.Actions(), c.metadata.Actions()) {
			if action.GetVerb() == "watch" {
				watches++
			}
		}
	}
}

func (c *cluster) create(t *testing.T, r schema.GroupVersionResource, v any) {
	t.Helper()
	object, err := v1alpha1.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	object.SetAPIVersion(v1alpha1.GroupVersion.String())
	if _, err := c.client.Resource(r).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// get waits until an object is as it is to be, and is there or not as it is to be.
func get[T any](t *testing.T, c *cluster, r schema.GroupVersionResource, name string, until func(*T) bool) {
	t.Helper()
	for {
		object, err := c.client.Resource(r).Get(t.Context(), name, metav1.GetOptions{})
		var v *T
		if err == nil {
			v, err = v1alpha1.Decode[T](object)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		if until(v) {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s %s is still %+v", r.Resource, name, v)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestRun(t *testing.T) {
	c := newCluster(t)
	c.run(t)
	c.create(t, v1alpha1.AgentProfiles, document(profile.KindProfile, "coder", 1, base))
	inForce := func(a *v1alpha1.AcceptedDocument) bool { return a != nil }
	get(t, c, v1alpha1.AcceptedDocuments, "agentprofile.coder", inForce)
	get(t, c, v1alpha1.AgentProfiles, "coder", func(d *v1alpha1.Document) bool {
		return d.Status.InForce != nil && d.Status.InForce.Generation == 1
	})

	node := reports("n", time.Now(), v1alpha1.ProfilesStatus{Digest: digest(accepts(profile.KindProfile, "coder", 1, base))},
		v1alpha1.HandlerStatus{Name: "metsuke-runc", Ready: true})
	node.Kind = v1alpha1.KindAgentNode
	c.create(t, v1alpha1.AgentNodes, node)
	get(t, c, v1alpha1.AgentProfiles, "coder", func(d *v1alpha1.Document) bool {
		return d.Status.Nodes == v1alpha1.NodeCounts{Total: 1, Acknowledged: 1}
	})
	labels := map[string]string{}
	for ; labels[v1alpha1.HandlerLabel+"metsuke-runc"] != v1alpha1.Ready || labels["other"] != "x"; time.Sleep(20 * time.Millisecond) {
		got, err := c.metadata.Resource(nodes).Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		labels = got.Labels
	}

	if err := c.client.Resource(v1alpha1.AgentProfiles).Delete(t.Context(), "coder", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	get(t, c, v1alpha1.AcceptedDocuments, "agentprofile.coder", func(a *v1alpha1.AcceptedDocument) bool { return a == nil })
}

// A status never says that a version is in force which could not be stored, and what failed is tried again.
func TestStoreFails(t *testing.T) {
	c := newCluster(t)
	failing := errors.New("etcd is away")
	c.client.PrependReactor("create", v1alpha1.AcceptedDocuments.Resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		return failing != nil, nil, failing
	})
	c.create(t, v1alpha1.AgentProfiles, document(profile.KindProfile, "coder", 1, base))
	object, err := c.client.Resource(v1alpha1.AgentProfiles).Get(t.Context(), "coder", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, object)
	next := c.round(t.Context(), noon)
	if want := noon.Add(afterFailure); !next.Equal(want) {
		t.Errorf("the next round is at %v, want %v", next, want)
	}
	get(t, c, v1alpha1.AgentProfiles, "coder", func(d *v1alpha1.Document) bool {
		if d.Status.InForce != nil {
			t.Errorf("the status says that generation %d is in force", d.Status.InForce.Generation)
		}
		return true
	})
	failing = nil
	c.round(t.Context(), next)
	get(t, c, v1alpha1.AgentProfiles, "coder", func(d *v1alpha1.Document) bool { return d.Status.InForce != nil })
}

// put gives the controller an object as an informer would.
func put(t *testing.T, c *cluster, object *unstructured.Unstructured) {
	t.Helper()
	d, err := v1alpha1.Decoded[v1alpha1.Document](object)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.documents[0].GetStore().Add(d); err != nil {
		t.Fatal(err)
	}
}
