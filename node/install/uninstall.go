// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/mirror"
)

// Uninstall takes away what Install has brought, and returns what it leaves and why: what others wrote or changed, and the streams unless
// purge. It refuses while anything runs under Metsuke. Like Install it goes back if containerd does not serve afterwards, holds the lock
// and may be run again; see there for what it blocks for.
func (n *Node) Uninstall(ctx context.Context, purge bool) (left []string, err error) {
	unlock, err := n.Tree.Lock(lockFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	v, err := n.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.idle(ctx, v); err != nil {
		return nil, err
	}
	r := v.record
	restart := v.forceErr != nil || v.clean != v.state.Containerd || missing(nil, n.everOurs(v), v.inForce) != "" || r.Before != nil
	if restart && !n.NoRestart {
		if err := n.Service.Restartable(); err != nil {
			return nil, err
		}
	}
	steps := []step{
		{"keep what is there", func(context.Context) error { return n.begin(r, v.state) }},
		{"remove what is unfinished", func(context.Context) error { return n.sweepAll(v) }},
	}
	if v.clean != v.state.Containerd {
		steps = append(steps, n.configSteps(r, v.state.Containerd, v.clean, v.bare, nil)...)
	}
	if restart && !n.NoRestart {
		steps = append(steps, step{"restart containerd", func(ctx context.Context) error {
			r.Restarted = true
			if err := n.save(r); err != nil {
				return err
			}
			return n.restart(ctx, func(h map[string]cri.Handler) string { return missing(nil, n.everOurs(v), h) })
		}})
	}
	if err := n.run(ctx, steps); err != nil {
		return nil, n.rollBack(ctx, r, err)
	}
	if restart && n.NoRestart && (v.forceErr != nil || missing(nil, n.everOurs(v), v.inForce) != "") {
		return nil, ErrRestartPending
	}
	return n.removeFiles(ctx, v, purge)
}

// everOurs are the handlers that containerd may have of ours: those in its files, and those that the files of an unfinished change had.
func (n *Node) everOurs(v *view) []string {
	names := slices.Clone(v.written)
	for name, h := range v.inForce {
		if _, plain := v.plain[name]; !plain && h.RuntimePath == Current+"/"+shim {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// idle refuses while anything runs that an uninstallation would take the ground from under.
func (n *Node) idle(ctx context.Context, v *view) error {
	if v.forceErr == nil {
		pods, err := n.podsUnder(ctx, n.everOurs(v))
		if err != nil {
			return err
		}
		if len(pods) > 0 {
			return fmt.Errorf("pods run under Metsuke's handlers: %s; move their workloads to another RuntimeClass first", strings.Join(pods, ", "))
		}
	}
	found, judged, err := n.versions()
	if err != nil {
		return err
	}
	var users []string
	for _, version := range found {
		for _, pid := range version.Processes {
			users = append(users, fmt.Sprintf("%d (%s)", pid, version.Name))
		}
	}
	if len(users) > 0 {
		return fmt.Errorf("processes of the node run Metsuke's binaries: %s; end what they belong to first", strings.Join(users, ", "))
	}
	if !judged {
		return fmt.Errorf("the node's processes cannot all be seen, so nobody knows what still runs Metsuke's binaries: run this as root, with the node's /proc")
	}
	return nil
}

// removeFiles takes away all but containerd's configuration. Nothing runs or names it any more.
func (n *Node) removeFiles(ctx context.Context, v *view, purge bool) (left []string, err error) {
	steps := n.etcSteps(v.record, nil, v.state.Etc)
	steps = append(steps,
		step{"remove the links", func(context.Context) error { return n.unlink() }},
		step{"remove " + Current, func(context.Context) error { return n.link("") }},
		step{"remove the versions", func(context.Context) error { return n.removeVersions(func(Version) bool { return true }) }},
	)
	profiles := &mirror.Mirror{Tree: n.Tree, Dir: config.Default().Directories.Profiles}
	steps = append(steps, step{"remove the cluster's profiles", func(context.Context) error { return profiles.Remove() }})
	if purge {
		steps = append(steps, step{"remove " + LogDir + " and " + LibDir, func(context.Context) error {
			return errors.Join(n.Tree.RemoveAll(LogDir), n.Tree.RemoveAll(LibDir))
		}})
	}
	steps = append(steps, step{"remove the directories", func(context.Context) error {
		// A kubelet has made these two, where a DaemonSet mounts them.
		return errors.Join(n.prune(v.record, true), n.removeEmpty(Etc), n.removeEmpty(LogDir))
	}})
	if err := n.run(ctx, steps); err != nil {
		return nil, err
	}
	return n.left(), nil
}

// left is what of an installation is still there: it was made or changed by others.
func (n *Node) left() (left []string) {
	for _, dir := range []string{Home, Etc, LogDir, LibDir} {
		entries, err := n.Tree.ReadDir(dir)
		if err != nil {
			continue // it is not there
		}
		for _, e := range entries {
			left = append(left, path.Join(dir, e.Name()))
		}
	}
	for _, name := range links {
		if have, err := n.linkTarget(path.Join(linkDir, name)); err == nil && have != "" {
			left = append(left, path.Join(linkDir, name))
		}
	}
	return left
}
