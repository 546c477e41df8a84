// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/shim/delegate"
)

// RuntimeType is that of Metsuke's handlers, and ShimName the binary that containerd makes of it.
const (
	RuntimeType = "io.containerd.metsuke.v2"
	ShimName    = "containerd-shim-metsuke-v2"
)

// survey is the node with what several checks look at, found out once.
type survey struct {
	*Node
	wanted []string // handlers that were asked for; empty: all

	inForce     map[string]cri.Handler // all, whoever's
	handlersErr error                  // why inForce is not known
	handlers    []handler              // Metsuke's, by name, as wanted
	setups      []*setup               // what the handlers are configured with
}

// handler is one of Metsuke's.
type handler struct {
	name string
	cri.Handler
	setup *setup
}

// setup is one configuration and the handlers that have it.
type setup struct {
	path    string // of the file; empty: there is none at the default path
	named   bool   // by a handler, or by --config
	shim    string // path of the shim's binary; empty: it was not found
	config  *config.Config
	err     error // why config is nil
	subject string
}

func newSurvey(ctx context.Context, n *Node, wanted []string) *survey {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	s := &survey{Node: n, wanted: wanted}
	if n.CRI == nil {
		s.handlersErr = fmt.Errorf("containerd does not answer: %w", n.CRIError)
	} else {
		s.inForce, s.handlersErr = n.CRI.Handlers(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(s.inForce)) {
		h := s.inForce[name]
		if !isOurs(h) || len(wanted) > 0 && !slices.Contains(wanted, name) {
			continue
		}
		s.handlers = append(s.handlers, handler{name, h, s.setupOf(configPath(h), h.RuntimePath)})
	}
	if len(s.setups) == 0 {
		s.setupOf("", "")
	}
	return s
}

// isOurs says whether a handler leads to Metsuke's shim.
func isOurs(h cri.Handler) bool {
	return h.RuntimePath == "" && h.RuntimeType == RuntimeType || path.Base(h.RuntimePath) == ShimName
}

// configPath is the configuration that a handler names; empty: none.
func configPath(h cri.Handler) string {
	p, _ := h.Options["ConfigPath"].(string)
	return p
}

// setupOf returns the setup with the configuration and the shim, which may be there already.
func (s *survey) setupOf(file, shim string) *setup {
	if s.Config != "" {
		file = s.Config
	}
	if shim == "" {
		beside := ""
		if s.Containerd != nil {
			beside = s.Containerd.Binary
		}
		shim = s.lookPath(ShimName, beside)
	}
	for _, u := range s.setups {
		if (u.path == file || file == "" && !u.named) && u.shim == shim {
			return u
		}
	}
	u := &setup{path: file, named: file != "", shim: shim}
	u.load(s.Node)
	s.setups = append(s.setups, u)
	return u
}

// load reads the configuration as the shim does (config.LoadOrDefault).
func (u *setup) load(n *Node) {
	if !u.named {
		u.path = config.DefaultPath
	}
	u.subject = u.path
	data, err := n.Tree.ReadFile(u.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !u.named:
		u.path, u.subject, u.config = "", "built-in default", config.Default()
	case err != nil:
		u.err = err
	default:
		u.config, u.err = config.Parse(u.path, data)
	}
}

// configured are the setups whose configuration can be read; the others are for the check of configurations.
func (s *survey) configured() []*setup {
	return slices.DeleteFunc(slices.Clone(s.setups), func(u *setup) bool { return u.config == nil })
}

// onlyGuests says that every configuration's containers run on kernels of their own.
func (s *survey) onlyGuests() bool {
	all := s.configured()
	return len(all) > 0 && !slices.ContainsFunc(all, func(u *setup) bool { return u.traits().HostPIDs })
}

// each calls check for each setup that can be read, and says so where there is none. What a finding is about is the setup unless it says
// something else; what two setups have in common is said once.
func (s *survey) each(check func(*setup) []Finding) (found []Finding) {
	for _, u := range s.configured() {
		for _, f := range check(u) {
			if f.Subject == "" {
				f.Subject = u.subject
			}
			if !slices.ContainsFunc(found, f.same) {
				found = append(found, f)
			}
		}
	}
	if len(s.configured()) == 0 {
		found = append(found, skip("there is no configuration that can be read: see the check config"))
	}
	return found
}

// traits are the facts of the delegate's family.
func (u *setup) traits() delegate.Traits {
	return delegate.Config{RuntimeType: u.config.Delegate.RuntimeType}.Traits()
}

// profiles reads the profiles of a setup as its shim does.
func (s *survey) profiles(u *setup) (*profile.Set, error) {
	d := u.config.Directories
	st, err := s.Tree.Stat(d.Profiles)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !d.ProfilesNamed:
		return profile.Load(nil, d.Profiles)
	case err != nil:
		return nil, fmt.Errorf("profiles directory: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("profiles directory: %s is not a directory", d.Profiles)
	}
	return profile.Load(s.Tree.FS(d.Profiles), d.Profiles)
}

// Handlers returns the names of Metsuke's handlers that are in force, sorted; none if containerd does not answer.
func (n *Node) Handlers(ctx context.Context) (names []string) {
	for _, h := range newSurvey(ctx, n, nil).handlers {
		names = append(names, h.name)
	}
	return names
}
