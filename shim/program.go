// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/types/runc/options"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/version"
)

// Program returns the shim as containerd runs it.
func Program() bootstrap.Program {
	return bootstrap.Program{
		Version: version.String(), Configure: configure, Serve: serve, Delete: recordDeath, Deleted: sweep,
	}
}

func configure(path string) (bootstrap.Settings, error) {
	cfg, err := config.LoadOrDefault(path)
	if err != nil {
		return bootstrap.Settings{}, err
	}
	d := delegateConfig(&cfg.Delegate)
	if cfg.Supervisor.Placement == config.PlacementHost && !d.Traits().HostPIDs {
		return bootstrap.Settings{}, fmt.Errorf("supervisor.placement %q: the containers of %s have a kernel of their own, whose calls cannot be seen "+
			"from the node; leave placement out, or set it to %q", config.PlacementHost, d.RuntimeType, config.PlacementGuest)
	}
	return bootstrap.Settings{Delegate: d, StateDir: cfg.Directories.State}, nil
}

// delegateConfig turns what the file says into what the delegate understands.
func delegateConfig(d *config.Delegate) delegate.Config {
	out := delegate.Config{Binary: d.Binary, RuntimeType: d.RuntimeType}
	if o := d.Runc; o != nil {
		out.Runc = &options.Options{
			BinaryName: o.BinaryName, Root: o.Root, SystemdCgroup: o.SystemdCgroup, ShimCgroup: o.ShimCgroup,
			NoPivotRoot: o.NoPivotRoot, NoNewKeyring: o.NoNewKeyring, IoUid: o.IoUid, IoGid: o.IoGid,
			CriuImagePath: o.CriuImagePath, CriuWorkPath: o.CriuWorkPath,
		}
	}
	if d.Kata != nil {
		out.ConfigPath = d.Kata.ConfigPath
	}
	return out
}

func serve(_ context.Context, pod *bootstrap.Pod) (*bootstrap.Service, error) {
	cfg, err := config.LoadOrDefault(pod.Config)
	if err != nil {
		return nil, err
	}
	s, err := New(Options{Config: cfg, Pod: pod})
	if err != nil {
		return nil, err
	}
	go s.closeAbandoned()
	return &bootstrap.Service{
		Intercept: s.Intercept,
		Event:     s.Observe,
		Close:     func(context.Context, bootstrap.End) error { s.Close(); return nil },
	}, nil
}
