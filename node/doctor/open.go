// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
	"metsuke.dev/metsuke/version"
)

// Place says where a node is.
type Place struct {
	Root    string // of its files: "/", or where a DaemonSet has it mounted
	Address string // of the socket at which containerd serves CRI, a path of the node; empty: the usual one
	Config  string // see Node.Config
}

// Open finds a node's parts; for containerd it waits half a minute at most. What is not there, the node says when it is looked at: the
// error is about the root alone. It is for one look: the socket is that of the containerd that runs now.
func Open(ctx context.Context, p Place) (*Node, error) {
	t, err := tree.Open(p.Root)
	if err != nil {
		return nil, err
	}
	n := &Node{Tree: t, Config: p.Config, Kernel: ThisKernel(), Version: version.String(), Statfs: statfsOn(t)}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if p.Address == "" {
		p.Address = cri.DefaultEndpoint
	}
	socket, release, err := t.Reach(strings.TrimPrefix(p.Address, "unix://"))
	if err == nil {
		n.release = release
		n.CRI, err = cri.Dial(ctx, socket)
	}
	n.CRIError = err
	n.ContainerdError = n.findContainerd(ctx)
	n.Run = runOn(p.Root, n.Path)
	return n, nil
}

// findContainerd looks for containerd where it runs, or else where systemd runs it.
func (n *Node) findContainerd(ctx context.Context) error {
	n.Path = containerd.SearchPath
	u, unitErr := containerd.FindUnit(ctx, n.Tree)
	if unitErr == nil {
		n.KillMode = u.KillMode
		n.Containerd = containerd.New(n.Tree, u.Binary, u.Config)
	}
	p, err := n.process(ctx)
	if err != nil {
		if unitErr != nil {
			return errors.Join(err, unitErr)
		}
		return nil
	}
	n.Path, n.Containerd = p.path, containerd.New(n.Tree, p.binary, p.config)
	return nil
}

// process is the containerd that answers.
type process struct {
	binary, config string
	path           []string // its PATH, in which it and its shims look for programs
}

func (n *Node) process(ctx context.Context) (*process, error) {
	if n.CRI == nil {
		return nil, n.CRIError
	}
	pid, err := n.CRI.PID(ctx)
	if err != nil {
		return nil, err
	}
	return readProcess(pid)
}

// readProcess reads what a process was started as from /proc (proc(5)).
func readProcess(pid int) (*process, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	binary, err := os.Readlink(dir + "exe")
	if err != nil {
		return nil, err
	}
	argv, err := readStrings(dir + "cmdline")
	if err != nil {
		return nil, err
	}
	environ, err := readStrings(dir + "environ")
	if err != nil {
		return nil, err
	}
	p := &process{binary: binary, config: containerd.ConfigOf(argv)}
	for _, v := range environ {
		if value, found := strings.CutPrefix(v, "PATH="); found {
			p.path = slices.DeleteFunc(filepath.SplitList(value), func(dir string) bool { return !filepath.IsAbs(dir) })
		}
	}
	if !filepath.IsAbs(p.config) {
		return nil, fmt.Errorf("containerd's main file is %q, which is not an absolute path", p.config)
	}
	return p, nil
}

// readStrings reads a file of strings that end in a zero byte.
func readStrings(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

// Close gives the node up.
func (n *Node) Close() error {
	var err error
	if n.CRI != nil {
		err = n.CRI.Close()
	}
	if n.release != nil {
		n.release()
	}
	return errors.Join(err, n.Tree.Close())
}
