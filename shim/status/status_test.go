// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/delegate"
	"metsuke.dev/metsuke/shim/proxy"
)

// serve makes a shim that answers as the handlers say, by method, and returns a client of it.
func serve(t *testing.T, handlers map[string]func() ([]byte, error)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := proxy.New(proxy.Config{
		Dial: func(context.Context) (net.Conn, error) { return nil, os.ErrNotExist },
		Intercept: func(call *proxy.Call) proxy.Handler {
			return func(context.Context, *proxy.Call, proxy.Next) ([]byte, error) {
				h, ok := handlers[call.Service+"/"+call.Method]
				if !ok {
					return nil, errdefs.ErrNotImplemented
				}
				return h()
			}
		},
	})
	t.Cleanup(server.Close)
	go func() { _ = server.Serve(l) }()
	return client(path)
}

func client(path string) *Client {
	return NewClient(&bootstrap.State{Address: "unix://" + path, Delegate: delegate.Instance{Version: 3}})
}

func TestClient(t *testing.T) {
	live := &Live{
		Version: "v1", PID: 7, Started: time.Unix(1_800_000_000, 0).UTC(),
		Containers: map[string]Container{"a\x1b[2J": {Seq: 3, Counts: &tally.Counts{Records: 2}}},
	}
	c := serve(t, map[string]func() ([]byte, error){
		Service + "/" + Method: live.Answer,
		"containerd.task.v3.Task/State": func() ([]byte, error) {
			return proto.Marshal(&taskapi.StateResponse{Status: tasktypes.Status_RUNNING, Pid: 42})
		},
		"containerd.task.v3.Task/Stats": func() ([]byte, error) {
			value, err := anypb.New(&cgroup2.Metrics{Pids: &cgroup2.PidsStat{Current: 3, Limit: 64}})
			if err != nil {
				return nil, err
			}
			return proto.Marshal(&taskapi.StatsResponse{Stats: value})
		},
	})
	got, err := c.Live(t.Context())
	if diff := cmp.Diff(live, got); err != nil || diff != "" {
		t.Errorf("live: %v\n%s", err, diff)
	}
	task, err := c.Task(t.Context(), "c")
	if diff := cmp.Diff(&Task{State: "running", PID: 42}, task); err != nil || diff != "" {
		t.Errorf("task: %v\n%s", err, diff)
	}
	usage, err := c.Usage(t.Context(), "c")
	if diff := cmp.Diff(&Usage{Pids: 3, PidsLimit: ptr(64)}, usage); err != nil || diff != "" {
		t.Errorf("usage: %v\n%s", err, diff)
	}
}

// The ways in which a shim does not answer are told apart.
func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	dead, err := net.Listen("unix", filepath.Join(dir, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false) // as kill -9 leaves it
	dead.Close()
	stuck, err := net.Listen("unix", filepath.Join(dir, "stuck"))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	older := serve(t, nil)
	garbage := serve(t, map[string]func() ([]byte, error){Service + "/" + Method: func() ([]byte, error) { return []byte{10, 1, '{'}, nil }})
	for _, test := range []struct {
		name   string
		client *Client
		want   error // nil: any
	}{
		{"no socket", client(filepath.Join(dir, "none")), ErrGone},
		{"nobody listens", client(filepath.Join(dir, "dead")), ErrGone},
		{"nobody answers", client(filepath.Join(dir, "stuck")), ErrSilent},
		{"older", older, ErrUnknown},
		{"garbage", garbage, nil},
	} {
		patience := time.Minute
		if test.name == "nobody answers" {
			patience = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		live, err := test.client.Live(ctx)
		if cancel(); err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %+v, %v; want %v", test.name, live, err, test.want)
		}
	}
}

func ptr(n uint64) *uint64 { return &n }

func TestUsage(t *testing.T) {
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	const unlimitedV1 = 0x7ffffffffffff000
	for _, test := range []struct {
		name string
		in   *anypb.Any
		want *Usage // nil: refused
	}{
		{"v1", pack(&cgroup1.Metrics{
			Memory: &cgroup1.MemoryStat{
				TotalInactiveFile: 30, Usage: &cgroup1.MemoryEntry{Usage: 100, Limit: 1000}, Swap: &cgroup1.MemoryEntry{Usage: 110, Limit: 1500},
			},
			MemoryOomControl: &cgroup1.MemoryOomControl{OomKill: 1},
			Pids:             &cgroup1.PidsStat{Current: 2, Limit: 64},
			CPU:              &cgroup1.CPUStat{Usage: &cgroup1.CPUUsage{Total: 5}, Throttling: &cgroup1.Throttle{Periods: 9, ThrottledPeriods: 3, ThrottledTime: 4}},
		}), &Usage{
			Memory: 100, WorkingSet: 70, MemoryLimit: ptr(1000), Swap: 10, SwapLimit: ptr(500), OOMKills: 1, Pids: 2, PidsLimit: ptr(64),
			CPU: 5, Periods: 9, ThrottledPeriods: 3, Throttled: 4,
		}},
		{"v1 without limits", pack(&cgroup1.Metrics{Memory: &cgroup1.MemoryStat{
			Usage: &cgroup1.MemoryEntry{Usage: 100, Limit: unlimitedV1}, Swap: &cgroup1.MemoryEntry{Usage: 100, Limit: unlimitedV1},
		}}), &Usage{Memory: 100, WorkingSet: 100}},
		{"v2", pack(&cgroup2.Metrics{
			Memory:       &cgroup2.MemoryStat{Usage: 100, UsageLimit: 1000, InactiveFile: 30, SwapUsage: 1, SwapLimit: 2},
			MemoryEvents: &cgroup2.MemoryEvents{OomKill: 1}, Pids: &cgroup2.PidsStat{Current: 2, Limit: math.MaxUint64},
			CPU: &cgroup2.CPUStat{UsageUsec: 5, NrPeriods: 9, NrThrottled: 3, ThrottledUsec: 4},
		}), &Usage{
			Memory: 100, WorkingSet: 70, MemoryLimit: ptr(1000), Swap: 1, SwapLimit: ptr(2), OOMKills: 1, Pids: 2,
			CPU: 5000, Periods: 9, ThrottledPeriods: 3, Throttled: 4000,
		}},
		{"v1 without swap", pack(&cgroup1.Metrics{Memory: &cgroup1.MemoryStat{
			Usage: &cgroup1.MemoryEntry{Usage: 100, Limit: 1000}, Swap: &cgroup1.MemoryEntry{Usage: 100, Limit: 1000},
		}}), &Usage{Memory: 100, WorkingSet: 100, MemoryLimit: ptr(1000), SwapLimit: ptr(0)}},
		{"empty", pack(&cgroup1.Metrics{}), &Usage{}},
		{"more inactive than used", pack(&cgroup2.Metrics{Memory: &cgroup2.MemoryStat{Usage: 1, InactiveFile: 2}}), &Usage{Memory: 1, SwapLimit: ptr(0)}},
		{"unknown", pack(&taskapi.StatsRequest{}), nil},
		{"none", nil, nil},
	} {
		got, err := readUsage(test.in)
		if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != (test.want == nil) {
			t.Errorf("%s: %v\n%s", test.name, err, diff)
		}
	}
}

// A container that makes its own counts too long does not keep the pod from answering.
func TestAnswerFits(t *testing.T) {
	long := &tally.Counts{Denials: []tally.Rule{{RuleID: strings.Repeat("\x1b", maxAnswer/6)}}}
	live := &Live{Containers: map[string]Container{"small": {Seq: 1, Counts: &tally.Counts{}}, "long": {Seq: 2, Counts: long}, "too": {Seq: 3, Counts: long}}}
	got, err := serve(t, map[string]func() ([]byte, error){Service + "/" + Method: live.Answer}).Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Containers; len(c) != 3 || c["small"].Counts == nil || c["long"].Counts != nil || c["too"].Counts != nil || c["too"].Seq != 3 {
		t.Errorf("%d containers, small %+v", len(c), c["small"])
	}
	if live.Containers["too"].Counts == nil {
		t.Error("the status itself was changed")
	}
}

// What a container's record lacks is told from what is damaged.
func TestReadOwner(t *testing.T) {
	write := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "metsuke.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if o, err := ReadOwner(write(`{"version":1,"owner":{"identity":{"Pod":"p"},"newer":1}}`)); err != nil || o.Identity != (audit.Identity{Pod: "p"}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, absent := range []string{t.TempDir(), write(`{"version":1}`)} {
		if _, err := ReadOwner(absent); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("absent: %v", err)
		}
	}
	for _, damaged := range []string{``, `{`, `{"owner":7}`} {
		if _, err := ReadOwner(write(damaged)); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}
