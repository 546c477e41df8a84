// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
)

// planned notes the plans of a supervision's launches.
type planned struct {
	supervision
	plan plan.Plan
}

func (p *planned) expect(exec, token string, l *plan.Plan) (expected, error) {
	p.plan = *l
	return p.supervision.expect(exec, token, l)
}

// An exec whose id is its container's would end the container's record with it.
func TestExecIsNotTheContainer(t *testing.T) {
	s := kataService(t, nil)
	if _, _, err := kataCreate(t, s, podSpec("container", nil), nil, nil); err != nil {
		t.Fatal(err)
	}
	call := taskCall(t, "Exec", &taskapi.ExecProcessRequest{ID: "c", ExecID: "c", Spec: &anypb.Any{Value: []byte(`{"args":["sh"]}`)}})
	if _, err := s.Intercept(call)(t.Context(), call, func(context.Context, []byte) ([]byte, error) {
		t.Error("it reaches the delegate")
		return nil, nil
	}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Error(err)
	}
}

// What Kata loses of an exec session's process on the way is in its launcher's plan, and the launcher can do it: it begins with the
// container's capabilities, whatever the request says.
func TestExecUnderKata(t *testing.T) {
	const chown, kill = 1 << 0, 1 << 5
	s := kataService(t, nil)
	init := func(p *specs.Spec) {
		p.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}}
	}
	got, _, err := kataCreate(t, s, podSpec("container", init), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.lookup("c")
	if err != nil {
		t.Fatal(err)
	}
	super := &planned{supervision: c.super}
	c.super = super

	score := 321
	process, err := json.Marshal(&specs.Process{
		Args: []string{"sh"}, Cwd: "/", User: specs.User{UID: 1000}, NoNewPrivileges: true, OOMScoreAdj: &score,
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 777, Hard: 888}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_SYS_ADMIN"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	call := taskCall(t, "Exec", &taskapi.ExecProcessRequest{ID: "c", ExecID: "e", Spec: &anypb.Any{Value: process}})
	var sent specs.Process
	_, err = s.Intercept(call)(t.Context(), call, func(_ context.Context, payload []byte) ([]byte, error) {
		var req taskapi.ExecProcessRequest
		if err := proto.Unmarshal(payload, &req); err != nil {
			return nil, err
		}
		return nil, json.Unmarshal(req.Spec.Value, &sent)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := plan.Plan{
		NoNewPrivs: true, OOMScoreAdj: &score, Rlimits: []plan.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: 777, Max: 888}},
		Caps: &plan.Caps{Bounding: kill}, // no more than the container's own
	}
	super.plan.Filter, super.plan.FilterFlags = nil, 0
	if diff := cmp.Diff(want, super.plan); diff != "" {
		t.Errorf("the plan (-want +got):\n%s", diff)
	}
	if len(sent.Args) != 5 || sent.Args[0] != got.spec.Process.Args[0] || sent.Args[1] != "run" || sent.Args[4] != "sh" {
		t.Errorf("arguments %q", sent.Args)
	}
	for name, set := range map[string][]string{
		"bounding": got.spec.Process.Capabilities.Bounding, "ambient": got.spec.Process.Capabilities.Ambient,
		"inheritable": got.spec.Process.Capabilities.Inheritable,
	} {
		for _, needed := range []string{"CAP_SYS_PTRACE", "CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"} {
			if !slices.Contains(set, needed) {
				t.Errorf("the container's %s set, which an exec gets, has no %s: %q", name, needed, set)
			}
		}
	}
}

// A session that the delegate refuses, as one of the same id runs, leaves that one as it was.
func TestExecOfATakenID(t *testing.T) {
	s := kataService(t, nil)
	if _, _, err := kataCreate(t, s, podSpec("container", nil), nil, nil); err != nil {
		t.Fatal(err)
	}
	c, err := s.lookup("c")
	if err != nil {
		t.Fatal(err)
	}
	exec := func(stdin string, answer error) error {
		call := taskCall(t, "Exec", &taskapi.ExecProcessRequest{
			ID: "c", ExecID: "e", Stdin: stdin, Spec: &anypb.Any{Value: []byte(`{"args":["sh"],"cwd":"/"}`)},
		})
		_, err := s.Intercept(call)(t.Context(), call, func(context.Context, []byte) ([]byte, error) { return nil, answer })
		return err
	}
	if err := exec("first", nil); err != nil {
		t.Fatal(err)
	}
	c.take("e").pending.cancel() // it is started
	if err := exec("second", errdefs.ErrAlreadyExists); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("the second: %v", err)
	}
	if c.stdin["e"].fifo != "first" {
		t.Errorf("stdin is %+v", c.stdin["e"])
	}
}

// Placement on the node is refused where the containers' kernel is another.
func TestConfigurePlacement(t *testing.T) {
	for _, test := range []struct {
		runtimeType string
		placement   config.Placement
		refused     bool
	}{
		{"io.containerd.kata.v2", "", false}, {"io.containerd.kata-qemu-runtime-rs.v2", config.PlacementGuest, false},
		{"io.containerd.kata.v2", config.PlacementHost, true}, {"io.containerd.runc.v2", config.PlacementHost, false},
	} {
		text := "version = 1\n[delegate]\nruntime_type = \"" + test.runtimeType + "\"\n"
		if test.placement != "" {
			text += "[supervisor]\nplacement = \"" + string(test.placement) + "\"\n"
		}
		path := t.TempDir() + "/c.toml"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := configure(path); (err != nil) != test.refused {
			t.Errorf("%s, placement %q: %v", test.runtimeType, test.placement, err)
		}
	}
}

// A helper that runtime-rs would not bring into the guest is refused before there is a pod.
func TestHelperUnderKata(t *testing.T) {
	helper := filepath.Join(t.TempDir(), "sys", "helper")
	if err := os.MkdirAll(filepath.Dir(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(helper, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Supervisor.Helper, cfg.Audit.Key = helper, filepath.Join(t.TempDir(), "key.pem")
	for runtimeType, refused := range map[string]bool{"io.containerd.kata.v2": true, delegate.RuncType: false} {
		pod := &bootstrap.Pod{Settings: bootstrap.Settings{Delegate: delegate.Config{RuntimeType: runtimeType}}}
		if _, err := New(Options{Config: cfg, Pod: pod}); (err != nil) != refused {
			t.Errorf("%s: %v", runtimeType, err)
		}
	}
}
