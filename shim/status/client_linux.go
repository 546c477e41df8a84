// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"metsuke.dev/metsuke/shim/bootstrap"
	"metsuke.dev/metsuke/shim/proxy"
)

// What is wrapped by a Client's errors.
var (
	// ErrGone says that nobody serves the shim's socket: it was killed, and containerd has not cleaned up yet.
	ErrGone = errors.New("the shim is gone")
	// ErrSilent says that no answer came in time.
	ErrSilent = errors.New("no answer in time")
	// ErrUnknown says that the shim does not know the container, or does not serve [Live] because it is older.
	ErrUnknown = errors.New("the shim does not know")
)

// Client asks one pod's shim. Each call makes a connection of its own, blocks until ctx ends at most, and is safe for
// concurrent use.
type Client struct {
	dial proxy.Dialer
	task string // name of the Task service
}

// NewClient returns a client of the pod's shim. It does not connect.
func NewClient(st *bootstrap.State) *Client {
	return &Client{dial: proxy.DialUnix(st.Address), task: st.TaskService()}
}

// Live asks the shim what it knows.
func (c *Client) Live(ctx context.Context) (*Live, error) {
	var answer wrapperspb.BytesValue
	if err := c.ask(ctx, Service, Method, &emptypb.Empty{}, &answer); err != nil {
		return nil, fmt.Errorf("ask the shim for its status: %w", err)
	}
	var live Live
	if err := json.Unmarshal(answer.Value, &live); err != nil {
		return nil, fmt.Errorf("status of the shim: %w", err)
	}
	return &live, nil
}

// Task is what the delegate says of a container's first process.
type Task struct {
	State  string // "created", "running", "paused", "stopped", …: containerd's names, in lower case
	PID    uint32 // on the node: of the process, or of the VMM
	Status uint32 // exit status, once it is stopped
	Exited time.Time
}

// Task asks the delegate for the state of a container.
func (c *Client) Task(ctx context.Context, id string) (*Task, error) {
	var state taskapi.StateResponse
	if err := c.ask(ctx, c.task, "State", &taskapi.StateRequest{ID: id}, &state); err != nil {
		return nil, fmt.Errorf("ask for the state of container %s: %w", id, err)
	}
	t := &Task{State: strings.ToLower(state.Status.String()), PID: state.Pid, Status: state.ExitStatus}
	if at := state.ExitedAt; at != nil && at.AsTime().Unix() > 0 {
		t.Exited = at.AsTime()
	}
	return t, nil
}

// Usage asks the delegate what a container uses. What is the supervisor's own is left out of it.
func (c *Client) Usage(ctx context.Context, id string) (*Usage, error) {
	var stats taskapi.StatsResponse
	if err := c.ask(ctx, c.task, "Stats", &taskapi.StatsRequest{ID: id}, &stats); err != nil {
		return nil, fmt.Errorf("ask for the usage of container %s: %w", id, err)
	}
	return readUsage(stats.Stats)
}

func (c *Client) ask(ctx context.Context, service, method string, req, resp proto.Message) error {
	err := proxy.Invoke(ctx, c.dial, service, method, req, resp)
	if err == nil {
		return nil
	}
	st, answered := grpcstatus.FromError(err)
	switch {
	case ctx.Err() != nil, errors.Is(err, unix.EAGAIN), answered && st.Code() == codes.DeadlineExceeded:
		// EAGAIN: so many wait to be accepted that the socket takes no more (connect(2)).
		return fmt.Errorf("%w: %w", ErrSilent, err)
	case errors.Is(err, ttrpc.ErrClosed):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case answered && (st.Code() == codes.Unimplemented || st.Code() == codes.NotFound):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}
