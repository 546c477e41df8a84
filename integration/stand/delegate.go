// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"fmt"
	"path/filepath"
)

// A Delegate is a shim that really runs pods, with what the stand does for it. [Runc] and [Kata] are all there are.
type Delegate struct {
	Name       string      // of the handler that is the delegate alone, too
	Placements []Placement // that supervisors can have

	about   func() string                       // what it is made of
	tools   func() []string                     // tool sets that it needs
	build   func(module string) error           // builds what else it needs, outside, from this module's directory
	install func(*Stand) (*installation, error) // once a stand, before containerd
}

// installation is a delegate as one stand has it. Lines are of TOML: NAME = VALUE.
type installation struct {
	runtimeType string   // containerd's name
	shim        string   // path of its binary
	path        []string // directories that containerd's PATH needs for it
	options     []string // lines of its options, in containerd's configuration and in Metsuke's
	alone       []string // lines of the handler that is the delegate alone, in containerd's configuration
	handler     []string // lines of every handler, likewise
	annotations []string // of pods, that such handlers pass on
	timeouts    []string // lines of what containerd's configuration says of its patience with shims
	close       func() error
}

// patientTimeouts replace containerd's own, which are seconds: on a busy machine a shim's delete would be killed halfway, and leave
// what it should have removed, and a shim that answers late would count as dead. Not for Kata's shim: it waits for guests that are gone.
var patientTimeouts = []string{
	"[timeouts]",
	`"io.containerd.timeout.shim.load" = "2m"`,
	`"io.containerd.timeout.shim.cleanup" = "2m"`,
	`"io.containerd.timeout.shim.shutdown" = "2m"`,
	`"io.containerd.timeout.task.state" = "2m"`,
}

// Runc is containerd's own shim, with runc.
var Runc = &Delegate{
	Name:       "runc",
	Placements: []Placement{Host, Guest},
	about:      func() string { return "runc" },
	tools:      func() []string { return []string{"runc"} },
	build:      func(string) error { return nil },
	install: func(s *Stand) (*installation, error) {
		runc, err := Tool("runc", "runc")
		if err != nil {
			return nil, err
		}
		shim, err := Tool(s.Version.Set(), "containerd-shim-runc-v2")
		if err != nil {
			return nil, err
		}
		return &installation{
			runtimeType: "io.containerd.runc.v2",
			shim:        shim,
			path:        []string{filepath.Dir(runc)},
			options:     []string{fmt.Sprintf("BinaryName = %q", runc), "SystemdCgroup = false"},
			timeouts:    patientTimeouts,
			close:       func() error { return nil },
		}, nil
	},
}

// delegates are all, the default first.
var delegates = []*Delegate{Runc, Kata}

// DelegateNamed is the delegate that a flag or an environment variable names; "" is Runc.
func DelegateNamed(name string) (*Delegate, error) {
	for _, d := range delegates {
		if name == d.Name || name == "" {
			return d, nil
		}
	}
	return nil, fmt.Errorf("there is no delegate %q: runc or kata", name)
}

// About says what the delegate is made of, for whoever reads results. Call it inside.
func (d *Delegate) About() string { return d.about() }

// Tools are the tool sets that the delegate needs, for [Enter].
func (d *Delegate) Tools() []string { return d.tools() }
