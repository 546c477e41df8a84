// SPDX-License-Identifier: Apache-2.0

// Package e2e runs pods of Kubernetes under Metsuke, on the nodes of a kind cluster (docs/kind-stand.md).
//
// TestMain puts the test binary into the stand's namespaces and makes one cluster of one node for all tests. A test calls
// [newSuite], which gives it a namespace; when the test ends, the namespace is deleted, and whatever its pods leave on the node
// fails it.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"metsuke.dev/metsuke/integration/kind"
)

// setUpLimit bounds the making of a cluster.
const setUpLimit = 15 * time.Minute

// runtimeClass is what the tests' pods ask for.
const runtimeClass = kind.Handler

var (
	docker *kind.Docker
	shared *cluster // with one node
)

// cluster is a kind cluster with Metsuke on each node, and what tests need of its API.
type cluster struct {
	*kind.Cluster
	api    kubernetes.Interface
	config *rest.Config
	bare   string // files of the first node before Metsuke was there: see filesScript
}

func TestMain(m *testing.M) {
	kind.Enter()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpLimit)
	defer cancel()
	if docker, err = kind.StartDocker(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, docker.Close()) }()
	fmt.Printf("these tests run on %s\n", docker.About()) // whether they pass or not; see docs/kind-stand.md
	if shared, err = newCluster(ctx, "metsuke", 0); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shared.Close()) }()
	return m.Run(), nil
}

// newCluster makes a cluster, puts Metsuke onto its nodes, and makes the RuntimeClass. The caller closes it.
func newCluster(ctx context.Context, name string, workers int) (*cluster, error) {
	made, err := docker.Create(ctx, name, workers)
	if err != nil {
		return nil, err
	}
	c := &cluster{Cluster: made}
	if err := c.setUp(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *cluster) setUp(ctx context.Context) (err error) {
	if err := c.connect(); err != nil {
		return err
	}
	if c.bare, err = c.Nodes[0].Script(ctx, filesScript); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.Install(ctx); err != nil {
			return err
		}
	}
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: runtimeClass}, Handler: kind.Handler}
	_, err = c.api.NodeV1().RuntimeClasses().Create(ctx, class, metav1.CreateOptions{})
	return err
}

// connect makes clients of the cluster's API.
func (c *cluster) connect() (err error) {
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	// Tests poll, and nobody else is served.
	c.config.QPS = -1
	c.api, err = kubernetes.NewForConfig(c.config)
	return err
}
