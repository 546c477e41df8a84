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

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/private"
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
	bundle  string       // its directory
	dir     string       // of the rendezvous socket, on the host
	private private.Name // directory in the container
	profile *profile.Resolved
	limits  cgroups.Limits   // as this node can enforce them
	clamped []cgroups.Change // of what the pod asked, at Create
	program *seccomp.Program
	filter  []byte // program as the launcher loads it
	stream  *stream.Writer
	earlier uint64      // records that were in stream before this instance
	watch   *stopwatch  // from Create to the end of Start
	caller  string      // who had it created, as a traceparent; empty: not told
	tally   tally.Tally // of what is written to stream since then
	super   supervision // nil until prepare has made it
	init    *initProcess
	// capabilities are the init process's own, before the rewrite.
	capabilities bundle.Capabilities
	exited       chan struct{} // closed when the exit record is written
	once         sync.Once     // closes exited

	updating sync.Mutex // held for the length of an Update

	mu       sync.Mutex
	current  *specs.LinuxResources // guarded by mu; in force, for ClampUpdate
	starts   map[string]*launch    // guarded by mu; by exec id, "" for the init process
	stdin    map[string]stdin      // guarded by mu; as starts
	oom      bool                  // guarded by mu; an OOM was seen
	ooms     *cgroups.OOMCounter   // guarded by mu; nil where the node's kernel does not tell
	oomKills uint64                // guarded by mu; of ooms, those that are recorded
	lost     bool                  // guarded by mu; we killed it, because its stream was lost
	deleted  bool                  // guarded by mu; its stream is to end with an end record
	over     bool                  // guarded by mu; Close has begun
	started  chan struct{}         // guarded by mu; closed when Start is over; nil: it was not called
}

// launch is one process of the container that goes through the launcher.
type launch struct {
	exec     string
	argv     []string
	terminal bool
	pending  expected
}

// expect registers a launch with its own token.
func (c *container) expect(token string, l *launch, p *plan.Plan) error {
	p.Filter, p.FilterFlags = c.filter, c.program.FilterFlags()
	pending, err := c.super.expect(l.exec, token, p)
	if err != nil {
		return err
	}
	l.pending = pending
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.starts[l.exec]; ok {
		pending.cancel()
		return fmt.Errorf("exec %s of container %s: an exec with this id is waiting to start", l.exec, c.id)
	}
	c.starts[l.exec] = l
	return nil
}

// created takes note of the init process that the delegate made.
func (c *container) created(pid int) error {
	if err := c.init.found(pid); err != nil {
		return err
	}
	c.mu.Lock()
	l := c.starts[""]
	c.mu.Unlock()
	return c.super.created(pid, l.pending)
}

// stdinOf returns the standard input of a process; the zero value for a process that is not there.
func (c *container) stdinOf(exec string) stdin {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stdin[exec]
}

// take returns the launch that Start is for; nil if there is none to be armed.
func (c *container) take(exec string) *launch {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.starts[exec]
	delete(c.starts, exec)
	return l
}

// forget gives up what is kept of a session that is deleted, and its launch if it was never started.
func (c *container) forget(exec string) {
	c.mu.Lock()
	delete(c.stdin, exec)
	c.mu.Unlock()
	c.withdraw(exec)
}

// endStdin is told that a process has ended.
func (c *container) endStdin(exec string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in, ok := c.stdin[exec]; ok {
		in.over = true
		c.stdin[exec] = in
	}
}

// withdraw gives up the launch of a session, if there is one.
func (c *container) withdraw(exec string) {
	if l := c.take(exec); l != nil {
		l.pending.cancel()
	}
}

// arm waits for the launcher, has a record made of what is in force, and lets it become the workload. Whatever the error,
// the workload has not run.
func (c *container) arm(ctx context.Context, l *launch, receipt func(inForce) (*audit.Event, error)) error {
	launcher, err := l.pending.await(ctx)
	if err != nil {
		return err
	}
	defer launcher.abandon()
	event, err := receipt(launcher.found())
	if err != nil {
		return err
	}
	if err := c.record(ctx, event); err != nil {
		return err
	}
	if l.exec == "" {
		c.noteChanges("create", c.clamped)
	}
	return launcher.arm(ctx)
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

// starting notes that Start is under way, until the function that it returns is called.
func (c *container) starting() (over func()) {
	started := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = started
	return func() { close(started) }
}

// settle waits until a Start that is under way is over, for drainGrace at most: it may hang in the delegate.
func (c *container) settle() {
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	if started == nil {
		return
	}
	select {
	case <-started:
	case <-time.After(drainGrace):
	}
}

// exit writes the record of the container's end, once, after the events that came before it, which may tell its cause.
func (c *container) exit(status uint32, at time.Time) {
	c.once.Do(func() {
		go func() {
			defer close(c.exited)
			c.settle()
			c.super.drain()
			c.note(c.exitEvent("", status, at))
		}()
	})
}

// end has close write the record of the end of this instance.
func (c *container) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleted = true
}

// endEvent has the totals of what this instance has recorded.
func (c *container) endEvent() *audit.Event {
	n := c.tally.Counts()
	e := &audit.End{Records: n.Records, Bytes: c.stream.Bytes(), Denied: n.Denied()}
	for _, calls := range n.Calls {
		e.Calls += calls.Count
	}
	for _, l := range n.Losses {
		e.Losses += l.Records
		e.Missing += l.Missing
	}
	return &audit.Event{Time: time.Now(), Kind: audit.KindEnd, End: e}
}

// close ends the supervision of the container and gives everything back. Calls that its processes still make and that
// would be notified get ENOSYS. It may be called again.
func (c *container) close() {
	c.mu.Lock()
	over, deleted := c.over, c.deleted
	c.over = true
	c.mu.Unlock()
	if over {
		return
	}
	c.init.close()
	logger := log.L.WithField("container", c.id)
	if c.super != nil {
		if err := c.super.close(); err != nil {
			logger.WithError(err).Warn("supervision did not close")
		}
	}
	if c.stream != nil {
		if deleted {
			c.note(c.endEvent())
		}
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

// ended waits for some time, and says whether the container's end is recorded, or its supervision closed.
func (c *container) ended(wait time.Duration) bool {
	select {
	case <-c.exited:
		return true
	case <-time.After(wait):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// socketPath is where the container's launchers meet us, on the host.
func (c *container) socketPath() string { return filepath.Join(c.dir, "sock") }
