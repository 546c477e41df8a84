// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/guest/plan"
)

func TestWidenCapabilities(t *testing.T) {
	const chown, kill, wideMask = 1 << 0, 1 << 5, 1<<8 | 1<<19 | 1<<21
	const wide = `"CAP_SETPCAP","CAP_SYS_ADMIN","CAP_SYS_PTRACE"`
	const guard = `"CAP_SETPCAP","CAP_SYS_PTRACE"` // under no_new_privs
	list := func(names []string) string { b, _ := json.Marshal(names); return string(b) }
	all := list(capabilities)
	root, err := unnamed(0)
	if err != nil || len(root.Permitted) == 0 {
		t.Fatalf("this test needs root: %v", err)
	}
	held := list(root.Permitted)
	five := `{"bounding":[` + wide + `],"effective":[` + wide + `],"inheritable":[` + wide + `],"permitted":[` + wide + `],"ambient":[` + wide + `]}`
	named := &Capabilities{Spec: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}}, Plan: &plan.Caps{Bounding: chown}}
	absent := &Capabilities{}                                         // of a container, and still absent
	replaced := &Capabilities{Plan: &plan.Caps{Bounding: ^uint64(0)}} // absent, and not any more
	tests := map[string]struct {
		container *Capabilities
		in, want  string
		caps      *plan.Caps
	}{
		"root": {nil,
			`{"user":{"uid":0},"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"inheritable":["CAP_KILL"],"x":1}}`,
			`{"user":{"uid":0},"capabilities":{"bounding":["CAP_CHOWN",` + wide + `],"effective":["CAP_CHOWN",` + wide + `],"permitted":["CAP_CHOWN",` + wide + `],"inheritable":["CAP_KILL"],"x":1}}`,
			&plan.Caps{Bounding: chown, Inheritable: kill, Effective: chown}},
		"root, no_new_privs": {nil,
			`{"user":{"uid":0},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"]}}`,
			`{"user":{"uid":0},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN",` + guard + `],"effective":["CAP_CHOWN",` + guard + `],"permitted":[` + guard + `]}}`,
			&plan.Caps{Bounding: chown, Effective: chown}},
		"user": {nil,
			`{"user":{"uid":7},"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"ambient":["CAP_CHOWN"],"inheritable":["CAP_CHOWN"]}}`,
			`{"user":{"uid":7},"capabilities":{"bounding":["CAP_CHOWN",` + wide + `],"effective":["CAP_CHOWN",` + wide + `],"permitted":["CAP_CHOWN",` + wide + `],"ambient":["CAP_CHOWN",` + wide + `],"inheritable":["CAP_CHOWN",` + wide + `]}}`,
			&plan.Caps{Bounding: chown, Inheritable: chown, Ambient: chown, Effective: chown}},
		"user, no_new_privs": {nil,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN","CAP_KILL"]}}`,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN","CAP_KILL",` + guard + `],"effective":["CAP_CHOWN",` + guard + `],"permitted":["CAP_CHOWN","CAP_KILL",` + guard + `],"inheritable":["CAP_CHOWN",` + guard + `],"ambient":["CAP_CHOWN",` + guard + `]}}`,
			&plan.Caps{Bounding: chown | kill, Effective: chown}},
		"user, effective beyond bounding": {nil,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]}}`,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":[` + guard + `],"effective":["CAP_CHOWN",` + guard + `],"permitted":["CAP_CHOWN",` + guard + `],"inheritable":[` + guard + `],"ambient":[` + guard + `]}}`,
			&plan.Caps{Effective: chown}},
		"user, all there": {nil, `{"user":{"uid":7},"capabilities":` + five + `}`, `{"user":{"uid":7},"capabilities":` + five + `}`,
			&plan.Caps{Bounding: wideMask, Inheritable: wideMask, Ambient: wideMask, Effective: wideMask}},
		"user, empty":  {nil, `{"user":{"uid":7},"capabilities":{}}`, `{"user":{"uid":7},"capabilities":` + five + `}`, &plan.Caps{}},
		"root, absent": {nil, `{"user":{"uid":0}}`, `{"user":{"uid":0}}`, nil},
		"root, null":   {nil, `{"capabilities":null}`, `{"capabilities":null}`, nil},
		"user, absent": {nil, `{"user":{"uid":7}}`,
			`{"user":{"uid":7},"capabilities":{"bounding":` + all + `,"effective":[` + wide + `],"inheritable":[` + wide + `],"permitted":[` + wide + `],"ambient":[` + wide + `]}}`,
			&plan.Caps{Bounding: ^uint64(0)}},
		"user, absent, no_new_privs": {nil, `{"user":{"uid":7},"noNewPrivileges":true}`, `{"user":{"uid":7},"noNewPrivileges":true}`, nil},

		// An exec that names no capabilities gets the container's, and those are widened: it must get the original's.
		"exec": {named, `{"user":{"uid":0}}`,
			`{"user":{"uid":0},"capabilities":{"bounding":["CAP_CHOWN",` + wide + `],"permitted":["CAP_CHOWN",` + wide + `],"effective":[` + wide + `]}}`,
			&plan.Caps{Bounding: chown}},
		"exec, no_new_privs": {named, `{"user":{"uid":7},"noNewPrivileges":true}`,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN",` + guard + `],"effective":[` + guard + `],"permitted":["CAP_CHOWN",` + guard + `],"inheritable":[` + guard + `],"ambient":[` + guard + `]}}`,
			&plan.Caps{Bounding: chown}},
		"exec that names its own": {named, `{"user":{"uid":0},"capabilities":{"bounding":["CAP_KILL",` + wide + `],"effective":[` + wide + `],"permitted":[` + wide + `]}}`,
			`{"user":{"uid":0},"capabilities":{"bounding":["CAP_KILL",` + wide + `],"effective":[` + wide + `],"permitted":[` + wide + `]}}`,
			&plan.Caps{Bounding: kill | wideMask, Effective: wideMask}},
		"exec, container without": {absent, `{"user":{"uid":0}}`, `{"user":{"uid":0}}`, nil},
		"exec of root, container's are named now": {replaced, `{"user":{"uid":0}}`,
			`{"user":{"uid":0},"capabilities":{"bounding":` + all + `,"effective":` + held + `,"permitted":` + held + `}}`,
			&plan.Caps{Bounding: ^uint64(0), Effective: mask(root.Permitted)}},
		"exec of a user, container's are named now": {replaced, `{"user":{"uid":7},"noNewPrivileges":true}`,
			`{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":` + all + `,"effective":[` + guard + `],"inheritable":[` + guard + `],"permitted":[` + guard + `],"ambient":[` + guard + `]}}`,
			&plan.Caps{Bounding: ^uint64(0)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var was Capabilities
			out, err := EditProcess([]byte(tt.in), WidenCapabilities(tt.container, &was))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(number(t, []byte(tt.want)), number(t, out)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.caps, was.Plan); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			var before specs.Process
			if err := json.Unmarshal([]byte(tt.in), &before); err != nil {
				t.Fatal(err)
			}
			if before.Capabilities == nil && tt.container != nil {
				before.Capabilities = tt.container.Spec
			}
			if diff := cmp.Diff(before.Capabilities, was.Spec); diff != "" {
				t.Errorf("original sets (-want +got):\n%s", diff)
			}
		})
	}
	if len(named.Spec.Bounding) != 1 {
		t.Error("the container's original sets were changed")
	}
	for _, in := range []string{`{"user":{"UID":7}}`, `{"user":{"uid":-1}}`, `{"capabilities":{"Ambient":[]}}`, `{"user":{"uid":7},"capabilities":{"bounding":[],"BOUNDING":[]}}`} {
		if got, err := EditProcess([]byte(in), WidenCapabilities(nil, &Capabilities{})); err == nil {
			t.Errorf("%s became %s", in, got)
		}
	}
}

func TestGuardCapabilities(t *testing.T) {
	const guard = `["CAP_SYS_PTRACE"]`
	for in, want := range map[string]string{
		`{"user":{"uid":0},"capabilities":{"bounding":["CAP_KILL"]}}`: `{"user":{"uid":0},"capabilities":{"bounding":["CAP_KILL","CAP_SYS_PTRACE"],"effective":` + guard + `,"permitted":` + guard + `}}`,
		`{"user":{"uid":7},"capabilities":{}}`:                        `{"user":{"uid":7},"capabilities":{"bounding":` + guard + `,"effective":` + guard + `,"inheritable":` + guard + `,"permitted":` + guard + `,"ambient":` + guard + `}}`,
		`{"user":{"uid":0}}`:                                          `{"user":{"uid":0}}`,
	} {
		out, err := EditProcess([]byte(in), GuardCapabilities())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(number(t, []byte(want)), number(t, out)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
}
