// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// Cluster is a running cluster. Its methods are safe for concurrent use, except Close.
type Cluster struct {
	Name       string
	Kubeconfig string  // path of the administrator's
	Nodes      []*Node // the control plane first

	docker *Docker
}

// configuration is kind's (https://kind.sigs.k8s.io/docs/user/configuration), for both node images: containerd's main file has version 2
// in both. restrict_oom_score_adj is for machines whose root may not lower it.
var configuration = template.Must(template.New("kind").Parse(`kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
{{- range .Workers}}
- role: worker
{{- end}}
containerdConfigPatches:
- |
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = {{.RestrictOOM}}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{.Hosts}}"
{{- if .PodNetwork}}
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_template = "{{.PodNetwork}}"
{{- end}}
{{- if .CgroupV1}}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
{{- end}}
`))

// hostsDir is where nodes find which registry answers for which name.
const hostsDir = "/etc/containerd/certs.d"

// readyPatience is how long a cluster that kubeadm has made may take until pods can be created.
const readyPatience = 5 * time.Minute

// Create makes a cluster with so many workers beside the control plane (which, without any, runs pods too), and blocks until its
// nodes are ready for pods. Its nodes can pull the stand's images by any registry's name. The caller closes it.
func (d *Docker) Create(ctx context.Context, name string, workers int) (*Cluster, error) {
	c := &Cluster{Name: name, Kubeconfig: filepath.Join(stand.Dir, name+".kubeconfig"), docker: d}
	var config bytes.Buffer
	err := configuration.Execute(&config, map[string]any{
		"Workers": make([]struct{}, workers), "Hosts": hostsDir, "PodNetwork": d.podNetwork(),
		"RestrictOOM": !stand.HasCapability(unix.CAP_SYS_RESOURCE), "CgroupV1": !stand.Unified(),
	})
	if err != nil {
		return nil, err
	}
	_, err = d.run(ctx, &config, "kind", "create", "cluster", "--name", name, "--image", d.image, "--kubeconfig", c.Kubeconfig, "--config", "-", "--retain")
	if err == nil {
		err = c.findNodes(ctx)
	}
	if err == nil {
		err = c.waitReady(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.lastWords(ctx), c.Close())
	}
	return c, nil
}

// lastWords are the ends of the nodes' journals, for whoever must find out why a cluster did not come up.
func (d *Docker) lastWords(ctx context.Context) error {
	nodes, err := d.docker(ctx, nil, "ps", "--format", "{{.Names}}")
	for _, node := range strings.Fields(nodes) {
		journal, fault := d.docker(ctx, nil, "exec", node, "journalctl", "--lines=60", "--no-pager", "--output=cat")
		err = errors.Join(err, fault, fmt.Errorf("journal of %s (end):\n%s", node, journal))
	}
	return err
}

// podNetwork is the template of the pods' network; the stock image has kindnet.
func (d *Docker) podNetwork() string {
	if d.stock {
		return ""
	}
	return podNetwork
}

func (c *Cluster) findNodes(ctx context.Context) error {
	out, err := c.docker.run(ctx, nil, "kind", "get", "nodes", "--name", c.Name)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(out) {
		n := &Node{Name: name, cluster: c}
		if err := n.find(ctx); err != nil {
			return err
		}
		if strings.HasSuffix(name, "-control-plane") {
			c.Nodes = append([]*Node{n}, c.Nodes...)
		} else {
			c.Nodes = append(c.Nodes, n)
		}
	}
	if len(c.Nodes) == 0 {
		return errors.New("kind made a cluster without nodes")
	}
	return nil
}

// waitReady connects the nodes to each other and to the stand's images, and waits until pods can be created: kind reports earlier.
func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for _, args := range [][]string{
		{"wait", "--for=condition=Ready", "node", "--all"},
		{"wait", "--for=create", "serviceaccount/default", "--namespace=default"},
		{"rollout", "status", "deployment/coredns", "--namespace=kube-system"},
		{"rollout", "status", "daemonset/kube-proxy", "--namespace=kube-system"},
	} {
		if args[0] == "wait" {
			args = append(args, "--timeout="+readyPatience.String())
		}
		if _, err := c.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := n.connect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Kubectl runs kubectl as the administrator, in the first node, and returns what it writes.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Nodes[0].Exec(ctx, append([]string{"kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"}, args...)...)
}

// Close deletes the cluster.
func (c *Cluster) Close() error {
	_, err := c.docker.run(context.Background(), nil, "kind", "delete", "cluster", "--name", c.Name, "--kubeconfig", c.Kubeconfig)
	return errors.Join(err, os.RemoveAll(c.Kubeconfig))
}
