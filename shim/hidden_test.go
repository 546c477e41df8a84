// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// A resident cannot be named in any method that takes the id of an exec session.
func TestResidentsCannotBeNamed(t *testing.T) {
	const own, other = residentPrefix + "ABC", "metsuke-residen"
	for method, request := range map[string]func(exec string) proto.Message{
		"State":     func(e string) proto.Message { return &taskapi.StateRequest{ID: "c", ExecID: e} },
		"Start":     func(e string) proto.Message { return &taskapi.StartRequest{ID: "c", ExecID: e} },
		"Exec":      func(e string) proto.Message { return &taskapi.ExecProcessRequest{ID: "c", ExecID: e} },
		"Kill":      func(e string) proto.Message { return &taskapi.KillRequest{ID: "c", ExecID: e, Signal: 9} },
		"Wait":      func(e string) proto.Message { return &taskapi.WaitRequest{ID: "c", ExecID: e} },
		"Delete":    func(e string) proto.Message { return &taskapi.DeleteRequest{ID: "c", ExecID: e} },
		"CloseIO":   func(e string) proto.Message { return &taskapi.CloseIORequest{ID: "c", ExecID: e, Stdin: true} },
		"ResizePty": func(e string) proto.Message { return &taskapi.ResizePtyRequest{ID: "c", ExecID: e, Width: 1} },
	} {
		s := &Service{containers: map[string]*container{"c": nil}}
		for _, exec := range []string{own, residentPrefix} {
			handler := s.Intercept(taskCall(t, method, request(exec)))
			if handler == nil {
				t.Errorf("%s of %s passes", method, exec)
				continue
			}
			_, err := handler(t.Context(), taskCall(t, method, request(exec)), func(context.Context, []byte) ([]byte, error) {
				t.Errorf("%s of %s reaches the delegate", method, exec)
				return nil, nil
			})
			if method == "Exec" && !errors.Is(err, errdefs.ErrInvalidArgument) || method != "Exec" && !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%s of %s: %v", method, exec, err)
			}
		}
		if hide(taskCall(t, method, request(other))) != nil || hide(taskCall(t, method, request(""))) != nil {
			t.Errorf("%s of another exec session is refused", method)
		}
	}
}

// Where a Pause could leave a container that cannot even be killed, it does not reach the delegate.
func TestPause(t *testing.T) {
	for _, tt := range []struct {
		delegate  string
		placement config.Placement
		refused   bool
	}{
		{delegate.RuncType, config.PlacementHost, false}, {delegate.RuncType, config.PlacementGuest, true}, {"io.containerd.kata.v2", config.PlacementGuest, false},
	} {
		s := &Service{
			traits:     delegate.Config{RuntimeType: tt.delegate}.Traits(),
			containers: map[string]*container{"ours": {}, "passthrough": nil},
			Options:    Options{Config: &config.Config{Supervisor: config.Supervisor{Placement: tt.placement}}},
		}
		for _, id := range []string{"ours", "passthrough"} {
			call, reached := taskCall(t, "Pause", &taskapi.PauseRequest{ID: id}), false
			handler := s.Intercept(call)
			var err error
			if handler != nil {
				_, err = handler(t.Context(), call, func(context.Context, []byte) ([]byte, error) { reached = true; return nil, nil })
			}
			if refused := handler != nil && !reached; refused != (tt.refused && id == "ours") || refused != errors.Is(err, errdefs.ErrNotImplemented) {
				t.Errorf("%s, %s, %s: refused %v, %v", tt.delegate, tt.placement, id, refused, err)
			}
		}
	}
}

func taskCall(t *testing.T, method string, m proto.Message) *proxy.Call {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &proxy.Call{Service: "containerd.task.v2.Task", Method: method, Payload: raw}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// containerd's typeurl writes the bare name.
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: raw}
}

func TestPidsLeaveResidentsOut(t *testing.T) {
	answer, err := proto.Marshal(&taskapi.PidsResponse{Processes: []*tasktypes.ProcessInfo{
		{Pid: 1}, {Pid: 2, Info: pack(t, &options.ProcessDetails{ExecID: "shell"})},
		{Pid: 3, Info: pack(t, &options.ProcessDetails{ExecID: residentPrefix + "X"})},
	}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := (&Service{}).pids(t.Context(), &proxy.Call{}, func(context.Context, []byte) ([]byte, error) { return answer, nil })
	var got taskapi.PidsResponse
	if err := errors.Join(err, proto.Unmarshal(raw, &got)); err != nil {
		t.Fatal(err)
	}
	if len(got.Processes) != 2 || got.Processes[0].Pid != 1 || got.Processes[1].Pid != 2 {
		t.Errorf("processes %v", got.Processes)
	}
}

func TestStatsLeaveResidentsOut(t *testing.T) {
	const limit = 100 + channel.ResidentTasks
	unlimited := ^uint64(0)
	for _, tt := range []struct{ current, limit, wantCurrent, wantLimit uint64 }{
		{15, limit, 5, 100},
		{15, unlimited, 5, unlimited},
		{15, 0, 5, 0}, // v1's way to say that there is none
		{3, limit, 3, 100},
	} {
		v1 := pack(t, &cgroup1.Metrics{Pids: &cgroup1.PidsStat{Current: tt.current, Limit: tt.limit}})
		if changed, err := withoutTasks(v1, 10); !changed || err != nil {
			t.Fatal(changed, err)
		}
		var one cgroup1.Metrics
		if err := v1.UnmarshalTo(&one); err != nil {
			t.Fatal(err)
		}
		if one.Pids.Current != tt.wantCurrent || one.Pids.Limit != tt.wantLimit {
			t.Errorf("v1 %+v: %v", tt, one.Pids)
		}
		v2 := pack(t, &cgroup2.Metrics{Pids: &cgroup2.PidsStat{Current: tt.current, Limit: tt.limit}})
		if changed, err := withoutTasks(v2, 10); !changed || err != nil {
			t.Fatal(changed, err)
		}
		var two cgroup2.Metrics
		if err := v2.UnmarshalTo(&two); err != nil {
			t.Fatal(err)
		}
		if two.Pids.Current != tt.wantCurrent || two.Pids.Limit != tt.wantLimit {
			t.Errorf("v2 %+v: %v", tt, two.Pids)
		}
	}
	other := &anypb.Any{TypeUrl: "new.Metrics", Value: []byte{1}}
	if changed, err := withoutTasks(other, 10); changed || err != nil {
		t.Error(changed, err)
	}
}
