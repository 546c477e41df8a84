// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// namespace is where Metsuke's manifests put it.
const namespace = "metsuke-system"

// token returns a token of a service account, bound to a node, as that of a pod on it is.
func (p *plane) token(ctx context.Context, account string, node *corev1.Node) (string, error) {
	expiration := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &expiration}}
	if node != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
	}
	request, err := p.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s: %w", account, err)
	}
	return request.Status.Token, nil
}

// join makes the cluster know a node, and returns the token of the agent on it.
func (p *plane) join(ctx context.Context, name string) (string, error) {
	node, err := p.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("node %s: %w", name, err)
	}
	return p.token(ctx, "metsuke-node", node)
}
