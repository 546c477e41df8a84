// SPDX-License-Identifier: Apache-2.0

// Package install puts Metsuke on a node and takes it away again: binaries, handlers, and what both need.
//
// The pieces of one change are steps with names, in an order in which each may be the last: an installer that is run again goes on
// where the other was stopped. What the node had is on its disk before the first step that changes it, and until containerd has been
// seen to work with what it got. What is ours is marked as such in itself (a sum in a file's first line, marks around a block), so
// that it is told from what others wrote without a memory. docs/adr/0007-the-installer.md has the reasons.
package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
)

// Places of an installation, as paths of the node.
const (
	Home     = "/opt/metsuke"        // a directory for each version, and a link to one of them
	Current  = Home + "/current"     // that link; handlers name it, so that changing it is all of an upgrade
	Etc      = "/etc/metsuke"        // a file for each handler, beside what operators write there
	LogDir   = "/var/log/metsuke"    // streams; the operator's
	LibDir   = "/var/lib/metsuke"    // the key that they are signed with; likewise
	linkDir  = "/usr/local/bin"      // links for people, and for ctr
	stateDir = Home + "/.installer"  // the record, and what is not finished
	staged   = stateDir + "/staged"  // a version that is being written
	removed  = stateDir + "/removed" // one that is being removed
	lockFile = "/run/metsuke-installer.lock"
)

// Binaries are what a version consists of, with their modes. The helper can be run and not read by what is in a container.
var Binaries = map[string]uint32{shim: 0o755, "metsuke": 0o755, "metsuke-guest": 0o711}

const shim = "containerd-shim-metsuke-v2"

// links are the links in linkDir.
var links = []string{shim, "metsuke"}

// Service is the node's containerd as it runs.
type Service interface {
	// Handlers are those in force, by name.
	Handlers(ctx context.Context) (map[string]cri.Handler, error)
	Pods(ctx context.Context) ([]cri.Pod, error)
	// Restartable says why Restart would not do, or would do harm.
	Restartable() error
	Restart(ctx context.Context) error
}

// Node is a node to work on.
type Node struct {
	Tree       *tree.Tree
	Containerd *containerd.Containerd
	Service    Service
	// Timeout bounds how long containerd may take until it serves after a restart.
	Timeout time.Duration
	// NoRestart leaves the restart of containerd to the caller, who learns of it by ErrRestartPending.
	NoRestart bool
	// Say is told what happens, a line at a time.
	Say func(line string)

	// stop, if not nil, is called before each step; tests stop installers there.
	stop func(step string)
}

// ErrRestartPending is wrapped by the error of [Node.Install] and [Node.Uninstall] if all is done but the restart of containerd, which
// the caller wanted to be left alone. The same call after the restart ends the work.
var ErrRestartPending = errors.New("containerd has to be restarted, and then the same command run again")

// A step is a part of a change. One that has been done already does nothing.
type step struct {
	name string
	do   func(ctx context.Context) error
}

// run does steps in order, until one fails.
func (n *Node) run(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if n.stop != nil {
			n.stop(s.name)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n.Say(s.name)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// Install brings the node to the plan that [Node.Plan] makes for the same source, and reports it. If a step fails, or containerd does
// not serve the handlers in time, it puts back what was there, and the error says both why and whether that worked. It holds the
// node's lock meanwhile ([tree.ErrLocked]); it blocks for the disk, for containerd's restart and for Timeout at most.
func (n *Node) Install(ctx context.Context, source Source) (_ *Plan, err error) {
	unlock, err := n.Tree.Lock(lockFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	p, err := n.Plan(ctx, source)
	if err != nil {
		return nil, err
	}
	if p.Restart && !n.NoRestart {
		if err := n.Service.Restartable(); err != nil {
			return p, err
		}
	}
	if len(p.steps) == 0 {
		return p, n.clean(p.record)
	}
	if err := n.run(ctx, p.steps); err != nil {
		return p, n.rollBack(ctx, p.record, err)
	}
	if p.Restart && n.NoRestart {
		return p, ErrRestartPending
	}
	return p, n.run(ctx, []step{
		{"end the change", func(context.Context) error { return n.commit(p.record) }},
		{"remove versions that nothing uses", func(context.Context) error { return n.clean(p.record) }},
	})
}

// rollBack puts back what the record has from before the change, and returns why.
func (n *Node) rollBack(ctx context.Context, r *record, cause error) error {
	n.Say("that failed; putting back what was there")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*n.Timeout) // also when the caller has given up
	defer cancel()
	first := r.Before != nil && r.Before.Linked == ""
	if err := n.goBack(ctx, r); err != nil {
		return fmt.Errorf("%w; and what was there could not be put back: %w; run the command again, or metsuke node uninstall", cause, err)
	}
	err := n.clean(r)
	if err == nil && first {
		err = n.leave(r)
	}
	if err != nil {
		return fmt.Errorf("%w; what was there is in place again, and something is left: %w", cause, err)
	}
	return fmt.Errorf("%w; the node is again as it was before", cause)
}

func (n *Node) goBack(ctx context.Context, r *record) error {
	if err := n.restore(r); err != nil {
		return err
	}
	if r.Restarted || n.stale(ctx) {
		if n.NoRestart {
			return errors.New("the files are as before, and containerd has to be restarted to read them")
		}
		if err := n.restart(ctx, func(map[string]cri.Handler) string { return "" }); err != nil {
			return err
		}
	}
	return n.commit(r)
}

// stale reports whether containerd is known to serve other handlers of ours than its files have: somebody else has restarted it.
func (n *Node) stale(ctx context.Context) bool {
	inForce, err := n.Service.Handlers(ctx)
	if err != nil {
		return false // we have not restarted it, so how it is is not our doing
	}
	dump, err := n.Containerd.Dump(ctx)
	if err != nil {
		return false
	}
	files, err := dump.Handlers()
	maps.DeleteFunc(inForce, func(_ string, h cri.Handler) bool { return h.RuntimePath != Current+"/"+shim })
	maps.DeleteFunc(files, func(_ string, t containerd.Table) bool { return text(t, "runtime_path") != Current+"/"+shim })
	return err == nil && !slices.Equal(slices.Sorted(maps.Keys(inForce)), slices.Sorted(maps.Keys(files)))
}

// restart restarts containerd and waits until it serves, and until missing finds nothing missing in what is in force.
func (n *Node) restart(ctx context.Context, missing func(map[string]cri.Handler) string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, n.Timeout, fmt.Errorf("containerd did not serve within %v", n.Timeout))
	defer cancel()
	if err := n.Service.Restart(ctx); err != nil {
		return err
	}
	for {
		handlers, err := n.Service.Handlers(ctx)
		if err == nil {
			what := missing(handlers)
			if what == "" {
				return nil
			}
			err = errors.New(what)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
