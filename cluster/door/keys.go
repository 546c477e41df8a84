// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metsuke.dev/metsuke/cluster/certificate"
	"metsuke.dev/metsuke/cluster/question"
)

const (
	valid   = 48 * time.Hour // a key of a door
	renewal = 24 * time.Hour // when another is made
	between = time.Minute    // two looks at what the cluster says
)

// Where the API server says how it proves itself.
const (
	frontNamespace = "kube-system"
	frontName      = "extension-apiserver-authentication"
)

var apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}

// keys are by whom the door knows the API server, and by what others know the door.
type keys struct {
	mu    sync.Mutex
	front *Front
	own   *tls.Certificate
	made  time.Time
}

type present struct {
	front *Front
	own   *tls.Certificate
}

func (k *keys) now() present {
	k.mu.Lock()
	defer k.mu.Unlock()
	return present{k.front, k.own}
}

// refresh reads how the API server proves itself, and sees that the door's certificate is among those that the API server and the agents
// know it by. A new key is used once its certificate is there.
func (d *Door) refresh(ctx context.Context) error {
	config, err := d.ConfigMaps.ConfigMaps(frontNamespace).Get(ctx, frontName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("how the API server proves itself: %w", err)
	}
	front, err := newFront(config)
	if err != nil {
		return fmt.Errorf("ConfigMap %s/%s: %w", frontNamespace, frontName, err)
	}
	k := d.keys.now()
	own, made := k.own, d.keys.made // refresh alone writes them, from one goroutine
	now := time.Now()
	if own == nil || now.Sub(made) > renewal {
		if own, err = certificate.New(d.Host, now, valid); err != nil {
			return err
		}
		made = now
	}
	if err := d.publish(ctx, own, now); err != nil {
		return fmt.Errorf("APIService %s: %w", question.APIService, err)
	}
	d.keys.mu.Lock()
	defer d.keys.mu.Unlock()
	d.keys.front, d.keys.own, d.keys.made = front, own, made
	return nil
}

// publish puts the door's certificate into the APIService, beside those of other replicas. A conflict with one of them is an error, and
// goes away when it is tried again.
func (d *Door) publish(ctx context.Context, own *tls.Certificate, now time.Time) error {
	object, err := d.Dynamic.Resource(apiServices).Get(ctx, question.APIService, metav1.GetOptions{})
	if err != nil {
		return err
	}
	text, _, _ := unstructured.NestedString(object.Object, "spec", "caBundle")
	data, _ := base64.StdEncoding.DecodeString(text) // what is damaged is replaced
	bundle := certificate.ParseBundle(data)
	if bundle.Has(own.Leaf, now) {
		return nil
	}
	data = bundle.With(own.Leaf, now).PEM()
	if err := unstructured.SetNestedField(object.Object, base64.StdEncoding.EncodeToString(data), "spec", "caBundle"); err != nil {
		return err
	}
	_, err = d.Dynamic.Resource(apiServices).Update(ctx, object, metav1.UpdateOptions{FieldManager: "metsuke-controller"})
	return err
}

// keep refreshes until ctx ends.
func (d *Door) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(between):
		}
		if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("what is known of the readers' API is old")
		}
	}
}
