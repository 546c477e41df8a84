// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metsuke.dev/metsuke/cluster/v1alpha1"
)

// report writes the node's AgentNode, which is made when there is none.
func (a *Agent) report(ctx context.Context) error {
	status := a.status
	status.Heartbeat = at(time.Now())
	// As a whole: what is no longer to be said must go.
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/status", "value": status}})
	if err != nil {
		return err
	}
	nodes := a.Client.Resource(v1alpha1.AgentNodes)
	write := func() error {
		_, err := nodes.Patch(ctx, a.Node, types.JSONPatchType, patch, metav1.PatchOptions{}, "status")
		return err
	}
	if err = write(); apierrors.IsNotFound(err) {
		if err = a.create(ctx); err == nil {
			err = write()
		}
	}
	if err != nil {
		return fmt.Errorf("AgentNode %s: %w", a.Node, err)
	}
	return nil
}

func (a *Agent) create(ctx context.Context) error {
	object, err := v1alpha1.Encode(&v1alpha1.AgentNode{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindAgentNode},
		ObjectMeta: metav1.ObjectMeta{Name: a.Node},
	})
	if err != nil {
		return err
	}
	delete(object.Object, "status")
	if _, err = a.Client.Resource(v1alpha1.AgentNodes).Create(ctx, object, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
