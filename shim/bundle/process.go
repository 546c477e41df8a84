// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Process is the OCI process of a container's init or of an exec; the edits are the same for both.
type Process struct{ o *object }

// A ProcessEdit changes one thing in a Process. After an error the Process must not be used.
type ProcessEdit func(*Process) error

// ErrNoArgs is returned by [PrefixArgs] for a process without arguments, in the words of runc, which refuses it
// likewise.
var ErrNoArgs = errors.New("args must not be empty")

// EditProcess edits the JSON of an OCI process, as an ExecProcessRequest carries it, and keeps the members that
// the edits do not name, those unknown to us included. The errors are those of [Load].
func EditProcess(raw []byte, edits ...ProcessEdit) ([]byte, error) {
	p, err := ParseProcess(raw)
	if err != nil {
		return nil, err
	}
	if err := p.apply(edits); err != nil {
		return nil, fmt.Errorf("edit the exec's process: %w", err)
	}
	return p.o.append(nil), nil
}

// ParseProcess reads the JSON of an OCI process, for callers that only look.
func ParseProcess(raw []byte) (*Process, error) {
	if len(raw) > MaxConfig {
		return nil, fmt.Errorf("the exec's process is larger than %d bytes", MaxConfig)
	}
	if err := checkNames(raw); err != nil {
		return nil, fmt.Errorf("the exec's process: %w", err)
	}
	o, err := parseObject("process", raw)
	if err != nil {
		return nil, fmt.Errorf("the exec's %w", err)
	}
	return &Process{o}, nil
}

func (p *Process) apply(edits []ProcessEdit) error {
	for _, edit := range edits {
		if err := edit(p); err != nil {
			return err
		}
	}
	return nil
}

// Args returns the arguments.
func (p *Process) Args() ([]string, error) {
	var args []string
	_, err := p.o.get("args", &args)
	return args, err
}

// NoNewPrivileges reports whether the process asks for no_new_privs itself.
func (p *Process) NoNewPrivileges() (bool, error) {
	var on bool
	_, err := p.o.get("noNewPrivileges", &on)
	return on, err
}

// PrefixArgs puts the launcher before the arguments: [Guest] run token -- args.
func PrefixArgs(token string) ProcessEdit {
	return func(p *Process) error {
		if token == "" {
			return errors.New("the launcher needs a token")
		}
		args, err := p.Args()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return ErrNoArgs
		}
		var raw []json.RawMessage // as they are spelled
		if _, err := p.o.get("args", &raw); err != nil {
			return err
		}
		var prefix []json.RawMessage
		for _, arg := range []string{Guest, "run", token, "--"} {
			r, err := marshal(arg)
			if err != nil {
				return err
			}
			prefix = append(prefix, r)
		}
		return p.o.set("args", append(prefix, raw...))
	}
}

// NoNewPrivileges sets process.noNewPrivileges.
func NoNewPrivileges() ProcessEdit {
	return func(p *Process) error {
		on, err := p.NoNewPrivileges()
		if on || err != nil {
			return err
		}
		return p.o.set("noNewPrivileges", true)
	}
}

// An EnvVar is a variable that was taken out of an environment.
type EnvVar struct {
	// Index is its place in the environment that the process would have had. Put back in ascending order, each
	// at its index, the variables are where they were.
	Index int
	Entry string // NAME=VALUE
}

// MoveGoEnv takes the variables whose names begin with GO out of process.env, because they steer the Go runtime
// of the launcher (GODEBUG, GOGC, GOMAXPROCS, GOMEMLIMIT, GOTRACEBACK and those to come), and stores them in
// moved. Indices count as runc builds an environment: of equal names the last one stays, and an empty HOME is
// dropped and appended anew.
func MoveGoEnv(moved *[]EnvVar) ProcessEdit {
	return func(p *Process) error {
		var env []string
		var raw []json.RawMessage
		if _, err := p.o.get("env", &env); err != nil {
			return err
		}
		if _, err := p.o.get("env", &raw); err != nil {
			return err
		}
		var out []EnvVar
		var kept []json.RawMessage
		names := map[string]bool{}
		counted := make([]bool, len(env)) // entries of the final environment
		for i, entry := range slices.Backward(env) {
			name, value, _ := strings.Cut(entry, "=")
			counted[i] = !names[name] && (name != "HOME" || value != "")
			names[name] = true
		}
		index := 0
		for i, entry := range env {
			// What the delegate refuses must stay, so that it still does.
			isGo := strings.HasPrefix(entry, "GO") && strings.Contains(entry, "=") && !strings.Contains(entry, "\x00")
			switch {
			case isGo && counted[i]:
				out = append(out, EnvVar{index, entry})
			case !isGo:
				kept = append(kept, raw[i])
			}
			if counted[i] {
				index++
			}
		}
		*moved = out
		if len(kept) == len(env) {
			return nil
		}
		if kept == nil {
			kept = []json.RawMessage{} // empty is not absent: runc then adds HOME
		}
		return p.o.set("env", kept)
	}
}

// Capabilities are the capability sets of a process before they were widened.
type Capabilities struct {
	// Bounding, Inheritable and Ambient have bit n set for capability n (linux/capability.h). They are what the
	// launcher restores; execve(2) derives the permitted and effective sets from them.
	Bounding, Inheritable, Ambient uint64
	// Spec is all five sets by name.
	Spec specs.LinuxCapabilities
}

// widening is what loading a filter without no_new_privs and dropping to the original sets takes.
var widening = []string{"CAP_SETPCAP", "CAP_SYS_ADMIN"}

// WidenCapabilities gives the launcher CAP_SYS_ADMIN and CAP_SETPCAP, through the ambient set for a user that is
// not root, and stores the original sets in was. The user stays. inherited are the container's original sets,
// for the exec of a process that names none: delegates then take the container's, which are widened. For init
// it is nil: absent is empty.
func WidenCapabilities(inherited *specs.LinuxCapabilities, was *Capabilities) ProcessEdit {
	return func(p *Process) error {
		var have specs.LinuxCapabilities
		found, err := p.o.get("capabilities", &have)
		if err != nil {
			return err
		}
		if !found && inherited != nil {
			have = *inherited
			if err := p.o.set("capabilities", have); err != nil {
				return err
			}
		}
		var user struct {
			UID uint32 `json:"uid"`
		}
		u, err := p.o.child("user")
		if err != nil {
			return err
		}
		if u != nil {
			if _, err := u.get("uid", &user.UID); err != nil {
				return err
			}
		}
		*was = Capabilities{mask(have.Bounding), mask(have.Inheritable), mask(have.Ambient), have}
		o, err := p.o.ensure("capabilities")
		if err != nil {
			return err
		}
		sets := map[string][]string{"bounding": have.Bounding, "effective": have.Effective, "permitted": have.Permitted}
		if user.UID != 0 {
			sets["inheritable"], sets["ambient"] = have.Inheritable, have.Ambient
		}
		for _, name := range []string{"bounding", "effective", "inheritable", "permitted", "ambient"} {
			if _, err := o.find(name); err != nil {
				return err
			}
			set, ok := sets[name]
			if !ok {
				continue
			}
			wide := slices.Clone(set)
			for _, c := range widening {
				if !slices.Contains(wide, c) {
					wide = append(wide, c)
				}
			}
			if len(wide) == len(set) {
				continue
			}
			if err := o.set(name, wide); err != nil {
				return err
			}
		}
		return nil
	}
}
