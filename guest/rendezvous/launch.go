// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"metsuke.dev/metsuke/guest/plan"
)

// Launch is a launcher that stands still under its filter, one step before the workload.
type Launch struct {
	PID      int      // as confirmed
	Listener *os.File // the seccomp listener; the caller's to serve and to close
	peer     *peer
	exec     bool
}

// Arm lets the launcher become the workload, and waits until it has. Somebody must be serving
// the Listener already: execve itself is notified. Arm never closes the Listener. It closes the connection, unless it
// returns an *ExecError: the launcher then waits for Close.
//
// Nil means that the launcher's connection ended as an execve ends it. A launcher that is killed
// in the instant after it was armed looks the same, as does a workload whose interpreter is missing
// or whose file is in no executable format: like runc, the launcher prints one line then and exits
// with 255. That the workload ran is known from its execve, which the Listener tells.
//
// Errors: *ExecError if execve was refused; ErrDied if the launcher was gone already; ctx's error.
// After an error the caller kills the process.
func (l *Launch) Arm(ctx context.Context) (err error) {
	defer func() {
		if _, told := errors.AsType[*ExecError](err); !told {
			l.peer.close()
		}
	}()
	stop := context.AfterFunc(ctx, func() {
		l.peer.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only if closed
	})
	defer stop()
	_, armErr := l.peer.conn.Write(plan.AppendHeader(nil, plan.TypeArmed, 0))
	o := l.peer.readOutcome(l.exec)
	switch {
	case ctx.Err() != nil:
		o.close()
		return fmt.Errorf("waiting for process %d to become the workload: %w", l.PID, context.Cause(ctx))
	case o.err == nil:
		o.close()
		return fmt.Errorf("arm process %d: %w: a second listener", l.PID, errProtocol)
	case errors.Is(o.err, ErrDied) && armErr == nil:
		return nil
	}
	return o.err
}

// Close gives a launch up that is not to be armed: the launcher exits without running the workload.
// It does not close the Listener.
func (l *Launch) Close() { l.peer.close() }

// ExecError is a launcher's own account of why it did not become the workload.
type ExecError struct {
	Stage plan.Stage
	Errno syscall.Errno // 0 where the stage has none
	Arg   string        // what it was done to; for the first stages the name of the executable
	Exec  bool          // in an exec session
}

func newExecError(f plan.Failure, exec bool) *ExecError {
	return &ExecError{Stage: f.Stage, Errno: syscall.Errno(f.Errno), Arg: f.Arg, Exec: exec}
}

// Workload says whether the workload's own executable is at fault: it is not there, or cannot be run.
func (e *ExecError) Workload() bool { return e.Stage <= plan.StageRelative }

// Error returns, for the faults of the workload's executable, the text that runc gives for them.
func (e *ExecError) Error() string {
	s := "unable to start container process: "
	if !e.Exec {
		s += "error during container init: "
	}
	switch name := strconv.Quote(e.Arg); e.Stage {
	case plan.StageNotFound, plan.StageRelative:
		return s + "exec: " + name + ": " + e.Stage.String()
	case plan.StageStat:
		return s + "exec: " + name + ": stat " + e.Arg + ": " + e.Errno.Error()
	case plan.StageExecutable:
		return s + "exec: " + name + ": " + e.Errno.Error()
	}
	s += "metsuke launcher: " + e.Stage.String()
	if e.Arg != "" {
		s += " " + strconv.Quote(e.Arg)
	}
	if e.Errno != 0 {
		s += ": " + e.Errno.Error()
	}
	return s
}

// Unwrap returns the errno, or nil where there is none.
func (e *ExecError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}
