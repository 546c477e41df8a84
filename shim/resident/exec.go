// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// processType is the name under which containerd's clients send an OCI process (package typeurl).
const processType = "types.containerd.io/opencontainers/runtime-spec/1/Process"

// hiddenExec is the exec session that the resident is.
type hiddenExec struct {
	container, id string
	helper        string // its path in the container
	invoke        func(ctx context.Context, method string, req, resp proto.Message) error

	asked   atomic.Bool // the delegate was asked to make it
	refused atomic.Bool // and did not start it
}

// process is what the delegate is asked to run. It has no capabilities of its own, so it gets the container's (Kata
// drops those of an exec, runc inherits if there are none), and no environment: the image's GO… variables are not for us.
func process(helper string) ([]byte, error) {
	return json.Marshal(&specs.Process{Args: []string{helper, "audit"}, Cwd: "/", Env: []string{}})
}

// start has the delegate make and start the session.
func (e *hiddenExec) start(ctx context.Context, p *pipes) error {
	spec, err := process(e.helper)
	if err != nil {
		return err
	}
	req := &taskapi.ExecProcessRequest{
		ID: e.container, ExecID: e.id, Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr,
		Spec: &anypb.Any{TypeUrl: processType, Value: spec},
	}
	e.asked.Store(true)
	err = e.invoke(ctx, "Exec", req, &emptypb.Empty{})
	if err == nil {
		err = e.invoke(ctx, "Start", &taskapi.StartRequest{ID: e.container, ExecID: e.id}, &taskapi.StartResponse{})
	}
	if err == nil {
		return nil
	}
	e.refused.Store(ctx.Err() == nil) // or it may still happen
	if ctx.Err() != nil {
		err = context.Cause(ctx) // which says what was late
	}
	if IsPolicy(err) {
		err = fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return fmt.Errorf("run it as an exec session: %w", err)
}

// containerEnded asks whether the container's first process has ended.
func (e *hiddenExec) containerEnded() bool {
	ctx, cancel := context.WithTimeout(context.Background(), tidyTimeout)
	defer cancel()
	var state taskapi.StateResponse
	err := e.invoke(ctx, "State", &taskapi.StateRequest{ID: e.container}, &state)
	return err == nil && state.Status == task.Status_STOPPED
}

// endedWith asks whether the session's process has ended, and how.
func (e *hiddenExec) endedWith(ctx context.Context) (status uint32, ended bool) {
	var state taskapi.StateResponse
	err := e.invoke(ctx, "State", &taskapi.StateRequest{ID: e.container, ExecID: e.id}, &state)
	return state.ExitStatus, err == nil && state.Status == task.Status_STOPPED
}

// IsPolicy says that an error of the delegate's comes from a policy of its guest. Kata's agent says PERMISSION_DENIED then and
// "NAMERequest is blocked by policy: …" (src/agent/src/policy.rs); its shims hand the text on, but not always the code (runtime-rs
// has only Unknown).
func IsPolicy(err error) bool {
	text := err.Error()
	return errdefs.IsPermissionDenied(errgrpc.ToNative(err)) || strings.Contains(text, "PERMISSION_DENIED") ||
		strings.Contains(text, "PermissionDenied") || strings.Contains(text, "is blocked by policy")
}

// kill ends the session's process. Errors are of no use: what it still says is not listened to.
func (e *hiddenExec) kill() {
	if !e.asked.Load() || e.refused.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tidyTimeout)
	defer cancel()
	_ = e.signal(ctx)
}

func (e *hiddenExec) signal(ctx context.Context) error {
	req := &taskapi.KillRequest{ID: e.container, ExecID: e.id, Signal: uint32(unix.SIGKILL)}
	return e.invoke(ctx, "Kill", req, &emptypb.Empty{})
}

// remove kills the session's process if it has not ended, waits for its end and has the delegate forget it. That it is
// not there, because the container was deleted or it never was made, is no error.
func (e *hiddenExec) remove(ctx context.Context, ended bool) error {
	if !e.asked.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tidyTimeout)
	defer cancel()
	if !ended && !e.refused.Load() {
		// Killing what has ended is an error, in each delegate's own words; Wait tells whether it has.
		killErr := e.signal(ctx)
		err := e.invoke(ctx, "Wait", &taskapi.WaitRequest{ID: e.container, ExecID: e.id}, &taskapi.WaitResponse{})
		if err != nil && !isNotFound(err) {
			return fmt.Errorf("end exec session %s: %w", e.id, errors.Join(killErr, err))
		}
	}
	err := e.invoke(ctx, "Delete", &taskapi.DeleteRequest{ID: e.container, ExecID: e.id}, &taskapi.DeleteResponse{})
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete exec session %s: %w", e.id, err)
	}
	return nil
}

// isNotFound knows runtime-rs by its text (crates/runtimes/common/src/error.rs): it has but one code.
func isNotFound(err error) bool {
	return err != nil && (errdefs.IsNotFound(errgrpc.ToNative(err)) || strings.Contains(err.Error(), "failed to find process") ||
		strings.Contains(err.Error(), "failed to find container"))
}
