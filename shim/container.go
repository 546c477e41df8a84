// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/shim/bundle"
)

// drainGrace bounds how long the end of a container waits for its last events before the exit record is written.
const drainGrace = time.Second

// container is one container of the pod, from its Create to its Delete. What is not guarded is set before anybody
// else can see it.
type container struct {
	id      string
	image   string
	bundle  string // its directory
	dir     string // of the rendezvous socket, on the host
	profile *profile.Resolved
	limits  cgroups.Limits   // as this node can enforce them
	clamped []cgroups.Change // of what the pod asked, at Create
	program *seccomp.Program
	filter  []byte // program as the launcher loads it
	stream  *stream.Writer
	meeting *rendezvous.Rendezvous
	watch   *supervisor.Supervisor
	// capabilities are the init process's own, before the rewrite.
	capabilities bundle.Capabilities
	exited       chan struct{} // closed when the exit record is written
	once         sync.Once     // closes exited

	updating sync.Mutex // held for the length of an Update

	mu      sync.Mutex
	pid     int                   // guarded by mu; of the init process, 0 before the delegate told it
	pidfd   *os.File              // guarded by mu; of the same process, nil when there is none
	mounts  string                // guarded by mu; its mount namespace, as /proc/<pid>/ns/mnt names it
	current *specs.LinuxResources // guarded by mu; in force, for ClampUpdate
	starts  map[string]*launch    // guarded by mu; by exec id, "" for the init process
	oom     bool                  // guarded by mu; an OOM was seen
	lost    bool                  // guarded by mu; we killed it, because its stream was lost
	over    bool                  // guarded by mu; Close has begun
}

// launch is one process of the container that goes through the launcher.
type launch struct {
	exec     string
	argv     []string
	terminal bool
	pending  *rendezvous.Pending
}

// expect registers a launch with its own token.
func (c *container) expect(token string, helper rendezvous.FileID, l *launch, p *plan.Plan) error {
	p.Filter, p.FilterFlags = c.filter, c.program.FilterFlags()
	pending, err := c.meeting.Expect(rendezvous.Spec{Token: token, Plan: p, Exec: l.exec != "", Helper: helper})
	if err != nil {
		return err
	}
	l.pending = pending
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.starts[l.exec]; ok {
		pending.Cancel()
		return fmt.Errorf("exec %s of container %s: an exec with this id is waiting to start", l.exec, c.id)
	}
	c.starts[l.exec] = l
	return nil
}

// created takes note of the init process that the delegate made, and returns its launch.
func (c *container) created(pid int) (*launch, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("init process %d: %w", pid, err)
	}
	mounts, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount namespace of init process %d: %w", pid, err), unix.Close(fd))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid, c.pidfd, c.mounts = pid, os.NewFile(uintptr(fd), "pidfd"), mounts
	return c.starts[""], nil
}

// checkHelper verifies that an exec session would run the helper: the delegate enters the mount namespace that the init
// process has by then, so it must be the one that the delegate made, and the helper must be where it was put.
func (c *container) checkHelper(helper string) error {
	c.mu.Lock()
	pid, mounts := c.pid, c.mounts
	c.mu.Unlock()
	now, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return fmt.Errorf("check the helper: %w", err)
	}
	if now != mounts {
		return fmt.Errorf("check the helper: process %d, the container's first, has left the mount namespace that it was started in", pid)
	}
	return bundle.CheckMounted(fmt.Sprintf("/proc/%d/root", pid), helper)
}

// killInit kills the init process, and no later process with its pid.
func (c *container) killInit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pidfd == nil {
		return nil
	}
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// take returns the launch that Start is for; nil if there is none to be armed.
func (c *container) take(exec string) *launch {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.starts[exec]
	delete(c.starts, exec)
	return l
}

// forget gives up a launch that was registered and will not start.
func (c *container) forget(exec string) {
	if l := c.take(exec); l != nil {
		l.pending.Cancel()
	}
}

// arm waits for the launcher, reads back what is in force, and lets it become the workload. Whatever the error, the
// workload has not run.
func (c *container) arm(ctx context.Context, l *launch, receipt func(pid int) (*audit.Event, error)) error {
	started, err := l.pending.Await(ctx)
	if err != nil {
		return err
	}
	defer started.Close()
	event, err := receipt(started.PID)
	if err != nil {
		started.Listener.Close()
		return err
	}
	if err := c.record(ctx, event); err != nil {
		started.Listener.Close()
		return err
	}
	if l.exec == "" {
		c.noteChanges("create", c.clamped)
	}
	if err := c.attach(started, l.exec); err != nil {
		return err
	}
	return started.Arm(ctx)
}

// attach hands the listener to the supervisor, which takes over a descriptor of its own.
func (c *container) attach(started *rendezvous.Launch, exec string) error {
	fd, err := duplicate(started.Listener)
	started.Listener.Close()
	if err != nil {
		return fmt.Errorf("listener of process %d: %w", started.PID, err)
	}
	if _, err := c.watch.Attach(fd, supervisor.Leader{PID: started.PID}, exec); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// record writes an event that something waits for: it is tried again until it is written or ctx ends.
func (c *container) record(ctx context.Context, e *audit.Event) error {
	for {
		err := c.stream.Append(e)
		if err == nil || !isTransient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// isTransient says that the stream may take the same event later.
func isTransient(err error) bool {
	var we *stream.WriteError
	return errors.As(err, &we)
}

// note writes an event that nothing waits for. If it cannot be written it is lost, and the log says so.
func (c *container) note(e *audit.Event) {
	if err := c.stream.Append(e); err != nil && !errors.Is(err, os.ErrClosed) {
		log.L.WithError(err).WithField("container", c.id).WithField("kind", e.Kind).Error("event is not in the audit stream")
	}
}

// noteChanges records each request that was lowered. What was not asked for and got the ceiling is in the receipt.
func (c *container) noteChanges(operation string, changes []cgroups.Change) {
	for _, change := range changes {
		if change.Requested == "" {
			continue
		}
		c.note(&audit.Event{Time: time.Now(), Kind: audit.KindLimit, Limit: &audit.Limit{
			Operation: operation, Resource: change.Resource, Requested: change.Requested, Ceiling: change.Ceiling,
			Applied: change.Applied,
		}})
	}
}

// exit writes the record of the container's end, once, after the events that came before it.
func (c *container) exit(event *audit.Event) {
	c.once.Do(func() {
		go func() {
			defer close(c.exited)
			c.drain()
			c.note(event)
		}()
	})
}

// drain waits until the processes of the container are gone and their events written.
func (c *container) drain() {
	deadline := time.Now().Add(drainGrace)
	for c.watch.Stats().Sessions > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
}

// close ends the supervision of the container and gives everything back. Calls that its processes still make and that
// would be notified get ENOSYS. It may be called again.
func (c *container) close() {
	c.mu.Lock()
	over := c.over
	c.over = true
	pidfd := c.pidfd
	c.pidfd = nil
	c.mu.Unlock()
	if over {
		return
	}
	if pidfd != nil {
		pidfd.Close()
	}
	logger := log.L.WithField("container", c.id)
	if c.meeting != nil {
		if err := c.meeting.Close(); err != nil {
			logger.WithError(err).Warn("rendezvous did not close")
		}
	}
	if c.watch != nil {
		if err := c.watch.Close(); err != nil {
			logger.WithError(err).Warn("supervisor did not close")
		}
	}
	if c.stream != nil {
		if err := c.stream.Close(); err != nil {
			logger.WithError(err).Error("audit stream did not close")
		}
	}
	if c.dir != "" {
		if err := os.RemoveAll(c.dir); err != nil {
			logger.WithError(err).Warn("rendezvous directory stays behind")
		}
	}
}

// socketPath is where the container's launchers meet us, on the host.
func (c *container) socketPath() string { return filepath.Join(c.dir, "sock") }

// duplicate returns a second descriptor of f, close-on-exec, that os.File does not own.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, err
	}
	return fd, dupErr
}
