// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
)

// A view is what is on a node.
type view struct {
	record  *record
	version containerd.Version
	state   state             // what of ours there is
	theirs  map[string]string // files in Etc that are not ours, by name
	clean   containerd.Files  // containerd's files without ours
	bare    containerd.Dump   // what containerd would have without ours
	plain   map[string]containerd.Table
	written []string // handlers of ours in containerd's files, sorted

	forceErr error // why inForce is nil
	inForce  map[string]cri.Handler
}

// look looks at the node. It changes nothing.
func (n *Node) look(ctx context.Context) (*view, error) {
	v := &view{}
	var err error
	if v.record, err = n.loadRecord(); err != nil {
		return nil, err
	}
	if v.version, err = n.Containerd.Version(ctx); err != nil {
		return nil, err
	}
	if v.state.Linked, err = n.linked(); err != nil {
		return nil, err
	}
	if v.state.Etc, v.theirs, err = n.etc(); err != nil {
		return nil, err
	}
	if err := n.lookAtContainerd(ctx, v); err != nil {
		return nil, err
	}
	v.inForce, v.forceErr = n.Service.Handlers(ctx)
	return v, nil
}

func (n *Node) lookAtContainerd(ctx context.Context, v *view) (err error) {
	if v.state.Containerd, err = n.Containerd.Read(); err != nil {
		return err
	}
	if v.clean, err = n.Containerd.Without(v.state.Containerd); err != nil {
		return err
	}
	now, err := n.Containerd.Dump(ctx)
	if err != nil {
		return err
	}
	v.bare = now
	if v.clean != v.state.Containerd {
		if v.bare, err = n.check(ctx, v.clean); err != nil {
			return err
		}
	}
	if v.plain, err = v.bare.Handlers(); err != nil {
		return err
	}
	all, err := now.Handlers()
	if err != nil {
		return err
	}
	maps.DeleteFunc(all, func(name string, _ containerd.Table) bool { _, ok := v.plain[name]; return ok })
	v.written = slices.Sorted(maps.Keys(all))
	return nil
}

// etc reads the files in Etc that can be handlers': ours, and others.
func (n *Node) etc() (ours, theirs map[string]string, err error) {
	ours, theirs = map[string]string{}, map[string]string{}
	entries, err := n.Tree.ReadDir(Etc)
	if errors.Is(err, fs.ErrNotExist) {
		return ours, theirs, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != ".toml" {
			continue
		}
		data, err := n.Tree.ReadFile(path.Join(Etc, e.Name()))
		switch {
		case err == nil && e.Type().IsRegular() && containerd.Sealed(string(data)):
			ours[e.Name()] = string(data)
		default: // unreadable ones too: they are not ours, and matter only if a handler wants the name
			theirs[e.Name()] = string(data)
		}
	}
	return ours, theirs, nil
}

// scratchPrefix begins the names of directories for configuration that containerd is asked about; /run does not outlive the node's
// next start.
const scratchPrefix = "/run/metsuke-check-"

// check lets containerd read files that are not in place.
func (n *Node) check(ctx context.Context, f containerd.Files) (_ containerd.Dump, err error) {
	dir := scratchPrefix + rand.Text()
	if err := n.Tree.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Tree.RemoveAll(dir)) }()
	return n.Containerd.Check(ctx, f, dir)
}

// sweep removes what an installer that was killed has left in places that are not its own.
func (n *Node) sweep(dirs ...string) error {
	left, err := n.Tree.Glob(scratchPrefix + "*")
	if err != nil {
		return err
	}
	for _, dir := range left {
		err = errors.Join(err, n.Tree.RemoveAll(dir))
	}
	for _, dir := range dirs {
		err = errors.Join(err, n.Tree.Sweep(dir))
	}
	return err
}

// sweepAll does so in all directories in which this package writes.
func (n *Node) sweepAll(v *view) error {
	main, err := n.Tree.Follow(n.Containerd.Config)
	if err != nil {
		return err
	}
	return n.sweep(Home, Etc, linkDir, path.Dir(main), path.Dir(v.state.Containerd.DropIn))
}

// missing says which of the handlers are not in force, and which others of ours are; "" if all is as it should be.
func missing(wanted []Handler, ours []string, inForce map[string]cri.Handler) string {
	var wrong []string
	for _, h := range wanted {
		if is, ok := inForce[h.Name]; !ok {
			wrong = append(wrong, "handler "+h.Name+" is not in force")
		} else if !h.inForce(is) {
			wrong = append(wrong, "handler "+h.Name+" is in force with other settings")
		}
	}
	for _, name := range ours {
		if _, ok := inForce[name]; ok && !slices.ContainsFunc(wanted, func(h Handler) bool { return h.Name == name }) {
			wrong = append(wrong, "handler "+name+" is still in force")
		}
	}
	return strings.Join(wrong, "; ")
}

// podsUnder are the pods that run under handlers, as "namespace/name (handler)".
func (n *Node) podsUnder(ctx context.Context, handlers []string) ([]string, error) {
	pods, err := n.Service.Pods(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range pods {
		if p.Ready && slices.Contains(handlers, p.Handler) {
			found = append(found, fmt.Sprintf("%q (%s)", p.Namespace+"/"+p.Name, p.Handler))
		}
	}
	slices.Sort(found)
	return found, nil
}
