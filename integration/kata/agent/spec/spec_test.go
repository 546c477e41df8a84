// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"reflect"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func minimal() *grpc.Spec {
	return &grpc.Spec{
		Process: &grpc.Process{Capabilities: &grpc.LinuxCapabilities{Effective: []string{`"CAP_KILL"`}}},
		Root:    &grpc.Root{Path: "/root"},
		Linux:   &grpc.Linux{},
	}
}

func TestConvert(t *testing.T) {
	in := minimal()
	in.Process.ApparmorProfile = "profile"
	in.Process.SelinuxLabel = "label"
	in.Hooks = &grpc.Hooks{Poststart: []*grpc.Hook{{Path: "/hook"}}}
	in.Linux.MountLabel = "label"
	out, err := Convert(in)
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Effective: []string{"CAP_KILL"}}},
		Root:    &specs.Root{Path: "/root"},
		Linux:   &specs.Linux{},
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got %+v, want %+v", out, want)
	}
}

func TestConvertRefuses(t *testing.T) {
	tests := map[string]func(*grpc.Spec){
		"no process":      func(s *grpc.Spec) { s.Process = nil },
		"no linux":        func(s *grpc.Spec) { s.Linux = nil },
		"no root":         func(s *grpc.Spec) { s.Root = nil },
		"no capabilities": func(s *grpc.Spec) { s.Process.Capabilities = nil },
		"a bad filter":    func(s *grpc.Spec) { s.Linux.Seccomp = &grpc.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONE"} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			in := minimal()
			change(in)
			if _, err := Convert(in); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

func TestExec(t *testing.T) {
	score := 5
	container := &specs.Process{
		Capabilities:    &specs.LinuxCapabilities{Effective: []string{"CAP_KILL"}},
		NoNewPrivileges: true,
		Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}},
		OOMScoreAdj:     &score,
	}
	tests := map[string]struct {
		in   *grpc.Process
		want *specs.Process
	}{
		"as the Go shim sends it": {
			&grpc.Process{Args: []string{"true"}},
			&specs.Process{
				Args: []string{"true"}, Capabilities: container.Capabilities, Rlimits: container.Rlimits, OOMScoreAdj: &score,
			},
		},
		"with all that there is": {
			&grpc.Process{
				NoNewPrivileges: true, OOMScoreAdj: 9, Rlimits: []*grpc.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1}},
				Capabilities: &grpc.LinuxCapabilities{},
			},
			&specs.Process{
				NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}, Rlimits: container.Rlimits, OOMScoreAdj: &score,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Exec(container, test.in)
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
	if _, err := Exec(&specs.Process{}, &grpc.Process{}); !errors.Is(err, ErrNoCapabilities) {
		t.Errorf("an exec in a container without capabilities: %v", err)
	}
}

func TestResources(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	shares, none := uint64(7), &specs.LinuxPids{Limit: number(0)}
	tests := map[string]struct {
		in   *grpc.LinuxResources
		want *specs.LinuxResources
	}{
		"none":          {nil, nil},
		"pids sent":     {&grpc.LinuxResources{Pids: &grpc.LinuxPids{Limit: 9}}, &specs.LinuxResources{}},
		"pids not sent": {&grpc.LinuxResources{}, &specs.LinuxResources{Pids: none}},
		"unlimited again": {
			&grpc.LinuxResources{Memory: &grpc.LinuxMemory{Limit: -1}},
			&specs.LinuxResources{Pids: none, Memory: &specs.LinuxMemory{}},
		},
		"memory and CPU": {
			&grpc.LinuxResources{
				Memory: &grpc.LinuxMemory{Limit: 1, Reservation: 2, Swap: 3}, CPU: &grpc.LinuxCPU{Shares: 7, Quota: -1, Mems: "0"},
			},
			&specs.LinuxResources{
				Pids:   none,
				Memory: &specs.LinuxMemory{Limit: number(1), Reservation: number(2), Swap: number(3)},
				CPU:    &specs.LinuxCPU{Shares: &shares, Mems: "0"},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Resources(test.in); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestCgroupPath(t *testing.T) {
	for sent, want := range map[string]string{"": "/id", "/k8s.io/x": "/k8s.io/x", "pods.slice:cri:x": "pods.slice/cri/x"} {
		if got := CgroupPath(&specs.Spec{Linux: &specs.Linux{CgroupsPath: sent}}, "id"); got != want {
			t.Errorf("%q: got %s, want %s", sent, got, want)
		}
	}
}
