// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"metsuke.dev/metsuke/cluster/acceptance"
	"metsuke.dev/metsuke/cluster/admission"
	"metsuke.dev/metsuke/cluster/v1alpha1"
)

var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// paramsChecked is how often the ConfigMap is looked at when the documents stay: somebody may have changed it.
const paramsChecked = 10 * time.Minute

// params keeps the ConfigMap that the admission policies about pods read.
type params struct {
	nodes  admission.Nodes
	client dynamic.ResourceInterface

	digest  string // acceptance.Digest of what was stored last
	checked time.Time
}

// keep makes the ConfigMap say what the versions in force say, for which the digest stands. It is not watched: that would need the right to read others.
func (p *params) keep(ctx context.Context, inForce map[acceptance.Key]*acceptance.Version, digest string, now time.Time) error {
	if digest == p.digest && now.Sub(p.checked).Abs() < paramsChecked {
		return nil
	}
	set, err := acceptance.Parse(inForce)
	if err != nil {
		return err
	}
	data, err := admission.Params(set, p.nodes)
	if err != nil {
		return err
	}
	if err := p.store(ctx, data); err != nil {
		return fmt.Errorf("ConfigMap %s: %w", admission.ConfigMap, err)
	}
	p.digest, p.checked = digest, now
	return nil
}

func (p *params) store(ctx context.Context, data map[string]string) error {
	there, err := p.client.Get(ctx, admission.ConfigMap, metav1.GetOptions{})
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return err
	}
	c := &corev1.ConfigMap{}
	if !absent {
		if c, err = v1alpha1.Decode[corev1.ConfigMap](there); err != nil {
			return err
		}
		if maps.Equal(c.Data, data) && len(c.BinaryData) == 0 {
			return nil
		}
	}
	c.TypeMeta = metav1.TypeMeta{APIVersion: corev1.SchemeGroupVersion.String(), Kind: "ConfigMap"}
	c.Name, c.Data, c.BinaryData = admission.ConfigMap, data, nil
	object, err := v1alpha1.Encode(c)
	if err != nil {
		return err
	}
	if absent {
		_, err = p.client.Create(ctx, object, metav1.CreateOptions{})
	} else {
		_, err = p.client.Update(ctx, object, metav1.UpdateOptions{})
	}
	return err
}
