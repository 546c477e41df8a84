// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/status"
)

const (
	// DefaultPatience is how long a pod's shim is waited for.
	DefaultPatience = 2 * time.Second

	maxPods       = 4096 // of a node
	maxContainers = 512  // of a pod
	maxAsked      = 256  // pods that are asked at a time
)

// Node is the pods under one state directory. Its methods change nothing and take no locks; they may be called
// concurrently.
type Node struct {
	StateDir string        // directories.state of the configuration
	Root     string        // where the node's root directory is mounted, if not at /
	Patience time.Duration // with each pod; 0: DefaultPatience
}

// Filter chooses pods. Each list that is not empty must have the pod's value; the zero Filter chooses all.
type Filter struct {
	Pods       []string // "pod" or "namespace/pod"
	Namespaces []string
}

// Match tells whether the filter chooses a pod.
func (f Filter) Match(p *Pod) bool {
	return (len(f.Namespaces) == 0 || slices.Contains(f.Namespaces, p.Namespace)) &&
		(len(f.Pods) == 0 || slices.ContainsFunc(f.Pods, p.named))
}

// named tells whether the pod has a name of the form "pod" or "namespace/pod".
func (p *Pod) named(name string) bool {
	namespace, short, full := strings.Cut(name, "/")
	return p.Name != "" && (p.Name == name || full && p.Namespace == namespace && p.Name == short)
}

// List returns the pods that the filter chooses, ordered by namespace, name and age, with what is cheap to know of them. It
// blocks for little longer than Patience. Pods that come or go meanwhile may be left out. What cannot be found out of a pod
// is among its Problems; the error is for what concerns all. A state directory that does not exist is an error that wraps
// fs.ErrNotExist.
func (n *Node) List(ctx context.Context, f Filter) ([]Pod, error) {
	found, err := n.find(ctx)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(p *pod) bool { return !f.Match(&p.Pod) })
	n.each(len(found), func(i int) { limited(ctx, n.patience(), found[i].ask) })
	return published(found), ctx.Err()
}

// Live is List of all pods with the Drift of their containers, and without what only delegates know: the state of a container is that of
// its pod. So it costs a pod one connection, and is for those who ask often.
func (n *Node) Live(ctx context.Context) ([]Pod, error) {
	found, err := n.find(ctx)
	if err != nil {
		return nil, err
	}
	n.each(len(found), func(i int) {
		limited(ctx, n.patience(), func(ctx context.Context) { found[i].askShim(ctx) })
	})
	now := present{root: n.Root}
	for _, p := range found {
		for i := range p.Containers {
			c := &p.Containers[i]
			c.State, c.Drift = string(p.State), now.drift(p.Shim.Config, p.owners[c.ID])
		}
	}
	return published(found), ctx.Err()
}

// OnDisk is List of all pods for those who only want their names: nobody is asked, and the states are not known.
func (n *Node) OnDisk(ctx context.Context) ([]Pod, error) {
	found, err := n.find(ctx)
	return published(found), err
}

func published(found []*pod) []Pod {
	out := make([]Pod, 0, len(found))
	for _, p := range found {
		out = append(out, p.Pod)
	}
	return out
}

func (n *Node) patience() time.Duration { return cmp.Or(n.Patience, DefaultPatience) }

// each runs work for each of count pods, so many at a time that a few that are stuck hold up none.
func (n *Node) each(count int, work func(i int)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i := range count {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			work(i)
		})
	}
	all.Wait()
}

// pod is a Pod that is being looked at.
type pod struct {
	Pod
	root   string // Node.Root
	client *status.Client
	owners map[string]*status.Owner // by container id; of the containers of Pod
	deaf   bool                     // the delegate lets a question wait, and is asked no more
}

func (p *pod) problem(err error) { p.Problems = append(p.Problems, err.Error()) }

// find reads what the shims have left on disk. Nobody is asked.
func (n *Node) find(ctx context.Context) ([]*pod, error) {
	dirs, err := bootstrap.PodDirs(filepath.Join(n.Root, n.StateDir))
	if err != nil {
		return nil, err
	}
	if len(dirs) > maxPods {
		return nil, fmt.Errorf("%s has more than %d pods", n.StateDir, maxPods)
	}
	var found []*pod
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p, err := readPod(n.Root, dir)
		switch {
		case errors.Is(err, fs.ErrNotExist): // comes or goes
		case err != nil:
			found = append(found, &pod{Pod: Pod{V: Version, State: Dead, Shim: Shim{Dir: dir}, Containers: []Container{}, Problems: []string{err.Error()}}})
		default:
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b *pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Created.Compare(b.Created),
			cmp.Compare(a.SandboxID, b.SandboxID))
	})
	return found, nil
}

func readPod(root, dir string) (*pod, error) {
	st, err := bootstrap.ReadState(dir)
	if err != nil {
		return nil, err
	}
	if filepath.Join(root, st.Dir) != dir {
		return nil, fmt.Errorf("%s holds the state of another directory, %s", dir, st.Dir)
	}
	p := &pod{
		Pod: Pod{
			V: Version, Namespace: st.Namespace, SandboxID: st.ID, State: Dead, Containers: []Container{},
			Delegate: Delegate{Binary: st.Delegate.Binary, PID: st.Delegate.Process.PID, Alive: st.Delegate.Process.Alive()},
			Shim:     Shim{Address: st.Address, Config: st.Config, Dir: st.Dir},
		},
		root: root, client: client(root, st), owners: map[string]*status.Owner{},
	}
	if info, err := os.Stat(dir); err == nil {
		p.Created = info.ModTime()
	}
	ids, err := status.Containers(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problem(err)
	}
	if len(ids) > maxContainers {
		p.problem(fmt.Errorf("the pod has %d containers, of which %d are shown", len(ids), maxContainers))
		ids = ids[:maxContainers]
	}
	for _, id := range ids {
		o, err := status.ReadOwner(filepath.Join(root, status.Bundle(st, id)))
		switch {
		case errors.Is(err, fs.ErrNotExist): // comes or goes
		case err != nil:
			p.problem(err)
		default:
			p.add(id, o)
		}
	}
	slices.SortStableFunc(p.Containers, func(a, b Container) int { return a.Created.Compare(b.Created) })
	return p, nil
}

// client is a client of the pod's shim, whose socket is below root.
func client(root string, st *bootstrap.State) *status.Client {
	below := *st
	if path, ok := strings.CutPrefix(st.Address, "unix://"); ok {
		below.Address = "unix://" + filepath.Join(root, path)
	}
	return status.NewClient(&below)
}

// add takes in what the record of a container says.
func (p *pod) add(id string, o *status.Owner) {
	p.Namespace, p.Name, p.UID = o.Identity.Namespace, o.Identity.Pod, o.Identity.PodUID
	p.Delegate.Type = o.Delegate
	if len(p.owners) == 0 || o.Created.Before(p.Created) {
		p.Created = o.Created
	}
	p.owners[id] = o
	if o.Sandbox {
		return
	}
	c := Container{
		Name: o.Identity.Container, ID: id, Image: o.Image, Profile: o.Identity.Profile, ProfileDigest: o.Identity.ProfileDigest,
		Placement: o.Placement, State: string(Dead), Created: o.Created,
	}
	if o.Stream != "" {
		c.Stream = &Stream{Dir: o.Stream}
	}
	p.Containers = append(p.Containers, c)
}
