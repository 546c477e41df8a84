// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"metsuke.dev/metsuke/guest/plan"
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

// uid returns the user that the process runs as; 0 where none is named.
func (p *Process) uid() (uint32, error) {
	var uid uint32
	u, err := p.o.child("user")
	if u == nil || err != nil {
		return 0, err
	}
	_, err = u.get("uid", &uid)
	return uid, err
}

// PrefixArgs puts the launcher, at guest in the container, before the arguments: guest run token -- args.
func PrefixArgs(guest, token string) ProcessEdit {
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
		for _, arg := range []string{guest, "run", token, "--"} {
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

// MoveGoEnv takes the variables whose names begin with GO out of process.env, because they steer the Go runtime
// of the launcher (GODEBUG, GOGC, GOMAXPROCS, GOMEMLIMIT, GOTRACEBACK and those to come), and stores them in
// moved, for [plan.MergeEnv] to put them back. Indices count as runc builds an environment: of equal names the last
// one stays, and an empty HOME is dropped and appended anew.
func MoveGoEnv(moved *[]plan.EnvVar) ProcessEdit {
	return func(p *Process) error {
		var env []string
		var raw []json.RawMessage
		if _, err := p.o.get("env", &env); err != nil {
			return err
		}
		if _, err := p.o.get("env", &raw); err != nil {
			return err
		}
		var out []plan.EnvVar
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
				out = append(out, plan.EnvVar{Index: index, Var: entry})
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
