// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/shim/proxy"
)

// A supervisor in the container is an exec session of the delegate's. Users neither see it nor can name it.

// residentPrefix begins the exec ids of residents, and of nothing else.
const residentPrefix = "metsuke-resident-"

func isResident(exec string) bool { return strings.HasPrefix(exec, residentPrefix) }

// hide returns a handler that refuses a call if it names a resident.
func hide(call *proxy.Call) proxy.Handler {
	// Every request of the Task service that has an exec id has it, and the container's, under these numbers.
	var req taskapi.StateRequest
	if decode(call.Payload, &req) != nil || !isResident(req.ExecID) {
		return nil // what cannot be decoded is the delegate's to refuse
	}
	var class error = errdefs.ErrNotFound
	if call.Method == "Exec" {
		class = errdefs.ErrInvalidArgument
	}
	return func(context.Context, *proxy.Call, proxy.Next) ([]byte, error) {
		return nil, fmt.Errorf("exec %s in container %s: ids that begin with %s are reserved: %w", req.ExecID, req.ID, residentPrefix, class)
	}
}

// pause refuses. The freezer stops a resident as it stops the workload, maybe with a call of the workload's in its hands; that
// call's task can then not be frozen (docs/notes.md), and the delegate would wait for it.
func (s *Service) pause(_ context.Context, _ *container, req *taskapi.PauseRequest, _ *proxy.Call, _ proxy.Next) ([]byte, error) {
	return nil, fmt.Errorf("pause container %s: its supervisor is in it and would be frozen with it, and so a call that waits for its answer "+
		"never would: use the supervisor's placement host for containers that are to be paused: %w", req.ID, errdefs.ErrNotImplemented)
}

// pids leaves residents out of the list of a container's processes.
func (s *Service) pids(ctx context.Context, call *proxy.Call, next proxy.Next) ([]byte, error) {
	raw, err := next(ctx, call.Payload)
	if err != nil {
		return nil, err
	}
	var resp taskapi.PidsResponse
	if err := decode(raw, &resp); err != nil {
		return nil, err
	}
	all := len(resp.Processes)
	resp.Processes = slices.DeleteFunc(resp.Processes, func(p *tasktypes.ProcessInfo) bool {
		var details options.ProcessDetails
		return p.Info.MessageIs(&details) && p.Info.UnmarshalTo(&details) == nil && isResident(details.ExecID)
	})
	if len(resp.Processes) == all {
		return raw, nil
	}
	return proto.Marshal(&resp)
}

// stats leaves a resident's tasks out of what a container uses, and what was added for them out of its limit.
func (s *Service) stats(ctx context.Context, c *container, _ *taskapi.StatsRequest, call *proxy.Call, next proxy.Next) ([]byte, error) {
	raw, err := next(ctx, call.Payload)
	if err != nil || c.super.tasks() == 0 {
		return raw, err
	}
	var resp taskapi.StatsResponse
	if err := decode(raw, &resp); err != nil {
		return nil, err
	}
	changed, err := withoutTasks(resp.Stats, c.super.tasks())
	if err != nil || !changed {
		return raw, err
	}
	return proto.Marshal(&resp)
}

// withoutTasks subtracts a resident's tasks from a container's metrics; those of an unknown type stay as they are.
func withoutTasks(stats *anypb.Any, tasks uint64) (changed bool, err error) {
	var v1 cgroup1.Metrics
	var v2 cgroup2.Metrics
	var m proto.Message
	switch {
	case stats.MessageIs(&v1):
		if err := stats.UnmarshalTo(&v1); err != nil {
			return false, fmt.Errorf("metrics of the delegate: %w", err)
		}
		if v1.Pids == nil {
			return false, nil
		}
		v1.Pids.Current, v1.Pids.Limit = less(v1.Pids.Current, tasks), less(v1.Pids.Limit, channel.ResidentTasks)
		m = &v1
	case stats.MessageIs(&v2):
		if err := stats.UnmarshalTo(&v2); err != nil {
			return false, fmt.Errorf("metrics of the delegate: %w", err)
		}
		if v2.Pids == nil {
			return false, nil
		}
		v2.Pids.Current, v2.Pids.Limit = less(v2.Pids.Current, tasks), less(v2.Pids.Limit, channel.ResidentTasks)
		m = &v2
	default:
		return false, nil
	}
	stats.Value, err = proto.Marshal(m)
	return true, err
}

// less subtracts; 0 (the resident is gone) and what stands for no limit stay.
func less(n, by uint64) uint64 {
	if n < by || n > 1<<62 {
		return n
	}
	return n - by
}
