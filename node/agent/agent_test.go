// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/v1alpha1"
	"metsuke.dev/metsuke/node/mirror"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/profile"
)

const base = `{"extends":["baseline"]}`

func accepted(kind, name string, generation int64, spec string) *v1alpha1.AcceptedDocument {
	return &v1alpha1.AcceptedDocument{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindAcceptedDocument},
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.AcceptedName(kind, name)},
		Spec:       v1alpha1.AcceptedSpec{Kind: kind, Name: name, Generation: generation, Document: json.RawMessage(spec)},
	}
}

func digest(documents ...*v1alpha1.AcceptedDocument) string {
	set := map[acceptance.Key]*acceptance.Version{}
	for _, d := range documents {
		set[acceptance.Key{Kind: d.Spec.Kind, Name: d.Spec.Name}] = &acceptance.Version{Spec: d.Spec.Document}
	}
	return acceptance.Digest(set)
}

// node is an agent on a client that keeps objects in memory, and its profile directory.
type node struct {
	client *dynamicfake.FakeDynamicClient
	dir    string // the profile directory
	config Config
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{client: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		v1alpha1.AcceptedDocuments: v1alpha1.KindAcceptedDocument + "List",
		v1alpha1.AgentNodes:        v1alpha1.KindAgentNode + "List",
	})}
	root := t.TempDir()
	files, err := tree.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	n.dir = filepath.Join(root, "profiles.d")
	n.config = Config{
		Client: n.client, Node: "n", Version: "v1", Mirror: &mirror.Mirror{Tree: files, Dir: "/profiles.d"}, Settle: time.Millisecond, Spread: time.Millisecond,
		Examine: func(context.Context) []v1alpha1.HandlerStatus {
			return []v1alpha1.HandlerStatus{{Name: "metsuke-runc", Ready: true}}
		},
	}
	return n
}

// run runs the agent until the test ends, or stop is called.
func (n *node) run(t *testing.T) (stop func()) {
	t.Helper()
	a, err := New(n.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.Run(ctx) // the error is that ctx ended
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// watches waits until the agent watches the documents. The client has no resource versions: what is written between the agent's list and
// its watch is told to nobody, ever.
func (n *node) watches(t *testing.T) {
	t.Helper()
	watch := func(a clienttesting.Action) bool { return a.GetVerb() == "watch" }
	for !slices.ContainsFunc(n.client.Actions(), watch) {
		time.Sleep(time.Millisecond)
	}
}

func (n *node) put(t *testing.T, d *v1alpha1.AcceptedDocument) {
	t.Helper()
	object, err := v1alpha1.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	client := n.client.Resource(v1alpha1.AcceptedDocuments)
	if _, err = client.Update(t.Context(), object, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		_, err = client.Create(t.Context(), object, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// waits until the node reports what it is to report.
func (n *node) waits(t *testing.T, until func(v1alpha1.AgentNodeStatus) bool) {
	t.Helper()
	var status v1alpha1.AgentNodeStatus
	for !until(status) {
		object, err := n.client.Resource(v1alpha1.AgentNodes).Get(t.Context(), "n", metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			t.Fatalf("%v; the last report is %+v", err, status)
		default:
			an, err := v1alpha1.Decode[v1alpha1.AgentNode](object)
			if err != nil {
				t.Fatal(err)
			}
			status = an.Status
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *node) file(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.dir, mirror.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDocumentsComeIntoForce(t *testing.T) {
	n := newNode(t)
	coder := accepted(profile.KindProfile, "coder", 1, base)
	n.put(t, coder)
	n.run(t)
	n.watches(t)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool {
		return s.Profiles.Digest == digest(coder) && len(s.Handlers) == 1 && s.Handlers[0].Ready && s.Version == "v1" && !s.Heartbeat.IsZero()
	})
	if file := n.file(t); !strings.Contains(file, `"name": "coder"`) {
		t.Errorf("the file is\n%s", file)
	}
	binding := accepted(profile.KindBinding, "a", 1, `{"default":"coder","namespaces":["a"]}`)
	n.put(t, binding)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return s.Profiles.Digest == digest(coder, binding) })
	if err := n.client.Resource(v1alpha1.AcceptedDocuments).Delete(t.Context(), "profilebinding.a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return s.Profiles.Digest == digest(coder) })
}

// A report without handlers would take the node's labels, so nothing is reported before the doctor has looked.
func TestDoctorBeforeReport(t *testing.T) {
	n := newNode(t)
	n.put(t, accepted(profile.KindProfile, "coder", 1, base))
	n.config.Examine = func(ctx context.Context) []v1alpha1.HandlerStatus {
		for ctx.Err() == nil { // long enough that the documents come into force
			if _, err := os.Stat(filepath.Join(n.dir, mirror.FileName)); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		if _, err := n.client.Resource(v1alpha1.AgentNodes).Get(ctx, "n", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a report was written before the doctor had looked: %v", err)
		}
		return []v1alpha1.HandlerStatus{{Name: "metsuke-runc", Ready: true}}
	}
	n.run(t)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return len(s.Handlers) == 1 && s.Profiles.Digest != "" })
}

// A set that the node cannot take is reported, with the digest of the one that stays; one that it can take ends the report.
func TestRefusedSetStaysOut(t *testing.T) {
	n := newNode(t)
	coder := accepted(profile.KindProfile, "coder", 1, base)
	n.put(t, coder)
	n.run(t)
	n.watches(t)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return s.Profiles.Digest == digest(coder) })
	before := n.file(t)
	n.put(t, accepted(profile.KindProfile, "coder", 2, `{"extends":["gone"]}`))
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool {
		return s.Profiles.Digest == digest(coder) && strings.Contains(s.Profiles.Refused, `there is no profile "gone"`)
	})
	if n.file(t) != before {
		t.Error("the file has changed")
	}
	mended := accepted(profile.KindProfile, "coder", 3, `{}`)
	n.put(t, mended)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool {
		return s.Profiles.Digest == digest(mended) && s.Profiles.Refused == ""
	})
}

// An agent that cannot list the documents leaves the node as it is.
func TestAPIServerAway(t *testing.T) {
	n := newNode(t)
	n.put(t, accepted(profile.KindProfile, "coder", 1, base))
	stop := n.run(t)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return s.Profiles.Digest != "" })
	stop()
	before := n.file(t)
	asked := make(chan struct{}, 100)
	n.client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked <- struct{}{}
		return true, nil, errors.New("connection refused")
	})
	stop = n.run(t)
	<-asked
	<-asked
	stop()
	if n.file(t) != before {
		t.Error("the file has changed")
	}
}

// A report that could not be written is written later.
func TestReportIsTriedAgain(t *testing.T) {
	n := newNode(t)
	failures := 2
	n.client.PrependReactor("patch", v1alpha1.AgentNodes.Resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, errors.New("too many requests")
	})
	reports := make(chan Report, 100)
	n.config.Reported = func(r Report) { reports <- r }
	n.run(t)
	n.waits(t, func(s v1alpha1.AgentNodeStatus) bool { return !s.Heartbeat.IsZero() })
	failed := 0
	for r := range reports {
		if r.Err == nil {
			break
		}
		failed++
	}
	if failed != 2 {
		t.Errorf("%d failures were told", failed)
	}
}

// An alarm that is asked for again and again still goes off.
func TestAlarm(t *testing.T) {
	a := newAlarm()
	defer a.Stop()
	a.within(20 * time.Millisecond)
	for {
		a.within(time.Hour)
		select {
		case <-a.C:
			return
		case <-time.After(time.Millisecond):
		}
	}
}
