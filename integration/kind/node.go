// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
)

// Node is one node of a cluster: a container of Docker's, in which systemd, containerd and the kubelet run. Its methods are safe for
// concurrent use, except Restart.
type Node struct {
	Name string

	cluster *Cluster
	pid     string // of its process 1, here
}

func (n *Node) find(ctx context.Context) (err error) {
	n.pid, err = n.cluster.docker.docker(ctx, nil, "inspect", "--format", "{{.State.Pid}}", n.Name)
	return err
}

// Path is where a file of the node can be reached from here, in whatever is mounted there. Symbolic links in the middle of it
// must be relative.
func (n *Node) Path(name string) string { return filepath.Join("/proc", n.pid, "root", name) }

// Exec runs a command in the node and returns what it writes to stdout, trimmed. What it writes to stderr is in the error.
func (n *Node) Exec(ctx context.Context, command ...string) (string, error) {
	return n.cluster.docker.docker(ctx, nil, append([]string{"exec", n.Name}, command...)...)
}

// Run runs a command in the node with its output, both streams, going to w.
func (n *Node) Run(ctx context.Context, w io.Writer, command ...string) error {
	cmd, err := n.cluster.docker.command(ctx, "docker", append([]string{"exec", n.Name}, command...)...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	return cmd.Run()
}

// Script runs a shell script in the node, as Exec does.
func (n *Node) Script(ctx context.Context, script string) (string, error) {
	return n.Exec(ctx, "bash", "-euc", script)
}

// Write writes a file in the node, and its directories.
func (n *Node) Write(name string, mode os.FileMode, content []byte) error {
	return n.put(name, mode, strings.NewReader(string(content)))
}

// Copy copies a file of the host into the node.
func (n *Node) Copy(name string, mode os.FileMode, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	return n.put(name, mode, in)
}

// put writes beside the file and renames, because a process of the node may run it.
func (n *Node) put(name string, mode os.FileMode, content io.Reader) error {
	path := n.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	beside := path + ".new"
	out, err := os.OpenFile(beside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	if err := errors.Join(err, out.Chmod(mode), out.Close()); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return os.Rename(beside, path)
}

// Containerd is a client of the node's containerd, in CRI's namespace "k8s.io". The caller closes it.
func (n *Node) Containerd() (*containerd.Client, error) {
	return containerd.New(n.Path("/run/containerd/containerd.sock"), containerd.WithDefaultNamespace("k8s.io"))
}

// RestartContainerd restarts the node's containerd, and returns when it serves.
func (n *Node) RestartContainerd(ctx context.Context) error {
	_, err := n.Exec(ctx, "systemctl", "restart", "containerd")
	return err
}

// Restart restarts the node as docker restart does, and returns when its cluster is ready for pods again.
func (n *Node) Restart(ctx context.Context) error {
	if _, err := n.cluster.docker.docker(ctx, nil, "restart", "--time", "60", n.Name); err != nil {
		return err
	}
	if err := n.find(ctx); err != nil {
		return err
	}
	// Before the API server is there again kubectl fails.
	if _, err := n.cluster.Nodes[0].Script(ctx, "until kubectl --kubeconfig=/etc/kubernetes/admin.conf get nodes; do sleep 0.2; done"); err != nil {
		return err
	}
	return n.cluster.waitReady(ctx)
}

// connect tells the node's containerd which registry has the stand's images, and, if the cluster's network does not do it, the
// node's kernel where the pods of the others are.
func (n *Node) connect(ctx context.Context) error {
	gateway, err := n.Script(ctx, "ip -4 route show default | cut -d' ' -f3")
	if err != nil {
		return err
	}
	// With server too: nobody else is to be asked for what is not there.
	registry := fmt.Sprintf("http://%s:%s", gateway, n.cluster.docker.registry)
	hosts := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", registry, registry)
	if err := n.Write(hostsDir+"/_default/hosts.toml", 0o644, []byte(hosts)); err != nil {
		return err
	}
	if n.cluster.docker.stock {
		return nil
	}
	for _, other := range n.cluster.Nodes {
		if other == n {
			continue
		}
		route, err := n.cluster.Kubectl(ctx, "get", "node", other.Name, "--output",
			`jsonpath={.spec.podCIDR} via {.status.addresses[?(@.type=="InternalIP")].address}`)
		if err != nil {
			return err
		}
		if _, err := n.Exec(ctx, append([]string{"ip", "route", "replace"}, strings.Fields(route)...)...); err != nil {
			return err
		}
	}
	return nil
}
