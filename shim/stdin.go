// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/shim/proxy"
)

// closeIO passes on when nobody writes to the process's stdin any more: Kata's Go shim waits for that with its one lock
// held, so that a client which closes its end later would stop the whole pod (service.go, CloseIO). Here it waits for
// itself alone.
func (s *Service) closeIO(ctx context.Context, c *container, req *taskapi.CloseIORequest, call *proxy.Call, next proxy.Next) ([]byte, error) {
	if req.Stdin {
		in := c.stdinOf(req.ExecID)
		err := in.awaitWriters(ctx, func() bool { return c.stdinOf(req.ExecID) != in })
		if errors.Is(err, errOver) {
			return nil, nil // an Empty: nobody reads it any more, and Kata would wait for its writers all the same
		}
		if err != nil {
			return nil, fmt.Errorf("close stdin of container %s: %w", req.ID, err)
		}
	}
	return next(ctx, call.Payload)
}

// stdinPoll is the pause between two looks at a FIFO.
const stdinPoll = 10 * time.Millisecond

// stdin is the standard input of a process.
type stdin struct {
	fifo string // its path on the host; empty for none
	over bool   // the process has ended
}

// errOver says that the process whose stdin is waited for has ended.
var errOver = errors.New("its process has ended")

// awaitWriters blocks until the FIFO is empty and nobody has it open for writing, the process has ended, which over tells, or
// ctx ends. What is no FIFO, or is not there, has no writers.
func (in stdin) awaitWriters(ctx context.Context, over func() bool) error {
	if in.fifo == "" {
		return nil
	}
	if in.over {
		return errOver
	}
	fifo, err := unix.Open(in.fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, &os.PathError{Op: "open", Path: in.fifo, Err: err})
	}
	defer unix.Close(fifo)
	var copies [2]int
	if err := unix.Pipe2(copies[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(copies[0])
	defer unix.Close(copies[1])
	for {
		// tee(2) takes nothing out. It returns 0 for a FIFO that is empty and has no writer, EAGAIN for one that has.
		n, err := unix.Tee(fifo, copies[1], 1, unix.SPLICE_F_NONBLOCK)
		switch {
		case n == 0 && err == nil, errors.Is(err, unix.EINVAL): // EINVAL: no FIFO
			return nil
		case n > 0:
			if _, err := unix.Read(copies[0], make([]byte, n)); err != nil {
				return err
			}
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("look for writers of %s: %w", in.fifo, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(stdinPoll):
		}
		if over() {
			return errOver
		}
	}
}
