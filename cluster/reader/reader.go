// SPDX-License-Identifier: Apache-2.0

// Package reader asks the readers' API on somebody's behalf, with that somebody's credentials, and finds the nodes to ask about.
package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"metsuke.dev/metsuke/cluster/question"
)

// maxAnswer bounds an answer that is read whole, in bytes: a node may answer anything.
const maxAnswer = 64 << 20

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// Client asks. Its methods are safe for concurrent use.
type Client struct {
	Dynamic dynamic.Interface
	http    *http.Client
	base    *url.URL
}

// New returns a client. It does not connect.
func New(config *rest.Config) (*Client, error) {
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	return &Client{Dynamic: dyn, http: client, base: base}, nil
}

// Ask returns the answer to a question, which is to be closed. Errors are the API's own, as apierrors knows them. A body that ends before
// the answer does is io.ErrUnexpectedEOF, or another error.
func (c *Client) Ask(ctx context.Context, q *question.Question) (io.ReadCloser, error) {
	u := q.URL()
	u.Scheme, u.Host, u.Path = c.base.Scheme, c.base.Host, strings.TrimSuffix(c.base.Path, "/")+u.Path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	response, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, refusal(response)
}

// refusal is the error of an answer that is none.
func refusal(r *http.Response) error {
	var status metav1.Status
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err == nil && json.Unmarshal(body, &status) == nil && status.Message != "" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	if r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("the cluster does not serve %s/%s (%s): is Metsuke's controller installed, and ready?", question.Group, question.Version, r.Status)
	}
	return fmt.Errorf("the API server answers %s", r.Status)
}

// Get asks a question whose answer is an object.
func (c *Client) Get(ctx context.Context, q *question.Question, into any) error {
	body, err := c.Ask(ctx, q)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("the answer of node %s: %w", q.Node, err)
	case len(data) > maxAnswer:
		return fmt.Errorf("the answer of node %s has more than %d bytes", q.Node, maxAnswer)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the answer of node %s: %w", q.Node, err)
	}
	return nil
}

// ErrNoNode is that a pod is on no node.
var ErrNoNode = errors.New("it is on no node")

// NodeOf returns on which node a pod is.
func (c *Client) NodeOf(ctx context.Context, namespace, name string) (string, error) {
	pod, err := c.Dynamic.Resource(pods).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("there is no pod %s/%s now; if there was one, say on which node: --node", namespace, name)
	}
	if err != nil {
		return "", err
	}
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	if node == "" {
		return "", fmt.Errorf("pod %s/%s: %w yet", namespace, name, ErrNoNode)
	}
	return node, nil
}

// page is how many pods are listed at a time.
const page = 500

// Nodes returns the nodes of the pods of a namespace (empty: of all) that have a RuntimeClass, sorted: only these can be under Metsuke,
// unless a node has it as its default.
func (c *Client) Nodes(ctx context.Context, namespace string) ([]string, error) {
	found := map[string]bool{}
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.Dynamic.Resource(pods).Namespace(namespace).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for _, pod := range list.Items {
			node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
			class, _, _ := unstructured.NestedString(pod.Object, "spec", "runtimeClassName")
			if node != "" && class != "" {
				found[node] = true
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			break
		}
	}
	var nodes []string
	for node := range found {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	return nodes, nil
}
