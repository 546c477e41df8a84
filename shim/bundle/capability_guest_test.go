// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/guest/plan"
)

func TestRefuseTracer(t *testing.T) {
	const tracer, both = `"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_PTRACE"]}`, `"capabilities":{"bounding":["CAP_SYS_PTRACE","CAP_SYS_ADMIN"]}`
	for in, refused := range map[string]struct{ resident, hosted bool }{
		`{` + tracer + `}`:                        {true, true},
		`{"noNewPrivileges":true,` + tracer + `}`: {true, false}, // its launcher has no more than it
		`{` + both + `}`:                          {false, false},
		`{}`:                                      {false, false},
		`{"capabilities":{"effective":["CAP_CHOWN"]}}`:    {false, false},
		`{"capabilities":{"ambient":["CAP_SYS_PTRACE"]}}`: {true, true},
	} {
		for resident, want := range map[bool]bool{true: refused.resident, false: refused.hosted} {
			out, err := EditProcess([]byte(in), RefuseTracer(resident))
			if (err != nil) != want || err == nil && string(out) != in {
				t.Errorf("%s, resident %v: %s, %v", in, resident, out, err)
			}
		}
	}
}

func TestWidenForResident(t *testing.T) {
	const chown, kill, netRaw = 1 << 0, 1 << 5, 1 << 13
	container := &Capabilities{
		Spec: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}},
		Plan: &plan.Caps{Bounding: chown | kill, Effective: chown},
	}
	unnamedContainer := &Capabilities{Plan: &plan.Caps{Bounding: ^uint64(0)}}
	tests := map[string]struct {
		dropped   bool
		container *Capabilities
		in        string
		caps      plan.Caps
	}{
		"root": {false, nil, `{"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"inheritable":["CAP_KILL"]}}`,
			plan.Caps{Bounding: chown, Inheritable: kill, Effective: chown}},
		"root of a VM": {true, nil, `{"user":{"uid":0},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN"]}}`, plan.Caps{Bounding: chown}},
		"user": {true, nil, `{"user":{"uid":7},"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN","CAP_NET_RAW"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]}}`,
			plan.Caps{Bounding: chown | netRaw, Effective: chown}},
		"user with ambient ones": {true, nil, `{"user":{"uid":7},"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}}`,
			plan.Caps{Bounding: kill, Inheritable: kill, Ambient: kill, Effective: kill}},
		"none":            {false, nil, `{"user":{"uid":7},"capabilities":{}}`, plan.Caps{}},
		"absent, user":    {true, nil, `{"user":{"uid":7},"noNewPrivileges":true}`, plan.Caps{Bounding: ^uint64(0)}},
		"exec":            {false, container, `{"user":{"uid":7}}`, plan.Caps{Bounding: chown | kill, Effective: chown}},
		"exec of its own": {false, container, `{"capabilities":{"bounding":["CAP_NET_RAW","CAP_KILL"],"effective":["CAP_NET_RAW"]}}`, plan.Caps{Bounding: netRaw | kill, Effective: netRaw}},
		// What it asks beyond the container's it would not get from such a delegate; what it asks less is lowered.
		"exec of its own, dropped": {true, container, `{"capabilities":{"bounding":["CAP_NET_RAW","CAP_KILL"],"effective":["CAP_NET_RAW"],"ambient":["CAP_NET_RAW"]}}`, plan.Caps{Bounding: kill}},
		"exec, dropped":            {true, container, `{"user":{"uid":1}}`, plan.Caps{Bounding: chown | kill, Effective: chown}},
		"exec, container without":  {true, unnamedContainer, `{"user":{"uid":7}}`, plan.Caps{Bounding: ^uint64(0)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var was Capabilities
			out, err := EditProcess([]byte(tt.in), WidenForResident(tt.dropped, tt.container, &was))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.caps, was.Plan); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			var p specs.Process
			if err := json.Unmarshal(out, &p); err != nil {
				t.Fatal(err)
			}
			checkResident(t, p.Capabilities, tt.dropped)
		})
	}
	if len(resident) != 7 {
		t.Errorf("the table is changed: %v", resident)
	}
	if _, err := EditProcess([]byte(`{"capabilities":{"Bounding":[]}}`), WidenForResident(true, nil, &Capabilities{})); err == nil {
		t.Error("a member in another case was overlooked")
	}
}

// checkResident verifies that a process, whatever its user, starts with all that the resident needs.
func checkResident(t *testing.T, c *specs.LinuxCapabilities, dropped bool) {
	t.Helper()
	if c == nil {
		t.Fatal("there are no capabilities")
	}
	for name, set := range map[string][]string{
		"bounding": c.Bounding, "effective": c.Effective, "inheritable": c.Inheritable, "permitted": c.Permitted, "ambient": c.Ambient,
	} {
		for _, capability := range resident {
			if !slices.Contains(set, capability) {
				t.Errorf("the %s set has no %s", name, capability)
			}
		}
		if slices.Contains(set, "CAP_SYS_RESOURCE") != dropped {
			t.Errorf("the %s set and CAP_SYS_RESOURCE: %v", name, set)
		}
	}
}

// The two halves of a container's life: what init and an exec of another user end with is what the specification said,
// though both start with the container's widened sets.
func TestWidenForResidentInitThenExec(t *testing.T) {
	const chown = 1 << 0
	var init, exec Capabilities
	if _, err := EditProcess([]byte(`{"user":{"uid":0},"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]}}`),
		WidenForResident(true, nil, &init)); err != nil {
		t.Fatal(err)
	}
	if _, err := EditProcess([]byte(`{"user":{"uid":1000}}`), WidenForResident(true, &init, &exec)); err != nil {
		t.Fatal(err)
	}
	want := &plan.Caps{Bounding: chown, Effective: chown}
	if diff := cmp.Diff([]*plan.Caps{want, want}, []*plan.Caps{init.Plan, exec.Plan}); diff != "" {
		t.Error(diff)
	}
	exec.Plan.Bounding = 0
	if init.Plan.Bounding != chown {
		t.Error("the plans share memory")
	}
}
