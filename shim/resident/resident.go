// SPDX-License-Identifier: Apache-2.0

// Package resident is the host's end of a supervisor that runs inside the container: it starts the resident as a hidden
// exec session of the delegate, tells it which launches to expect, and takes its events into the container's stream.
//
//	          launches, limits            ┌────────┐   FIFO   ┌───────────┐
//	package shim ────────────► Resident ─►│ outbox ├─────────►│ delegate, │ stdin
//	                              ▲       └────────┘          │ agent,    ├──────► resident
//	                              │       ┌────────┐   FIFO   │ VM        │◄────── (guest/resident)
//	stream.Writer ◄── keeper ◄── inbox ◄──┤ receive│◄─────────┤           │ stdout
//	                                      └────────┘          └───────────┘
//
// Everything that comes from the resident is hostile: whoever has taken its container or its VM over can send what it
// likes. It is authenticated and bounded by guest/channel, must be what the protocol allows next, and decides nothing on
// the host but what becomes of its own container. A resident that breaks a rule is killed, and its end counts as a loss.
//
// The host is the authority for losses. The resident waits for an acknowledgement as long as it takes; it is the host
// that tries a failing stream again, gives up after the stall timeout and does what the profile's onLoss says.
package resident

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/rendezvous"
)

const (
	// sendTimeout bounds how long the resident may leave its input unread. Kata's Go shim gives an input up after 60 s.
	sendTimeout = 30 * time.Second
	// controlTimeout bounds how long the resident may take to answer a Control, for callers that would wait for ever: it may
	// be stopped. The kernel reclaims memory within a write that lowers a limit.
	controlTimeout = 30 * time.Second
	// endGrace is how long after the end of the resident's output its exit status, or the end of the container, may become
	// known. The kernel kills the resident when the first process of its pid namespace ends, before anybody is told of
	// that end.
	endGrace = 5 * time.Second
	// drainGrace bounds how long Close waits for the last events.
	drainGrace = 2 * time.Second
	// tidyTimeout bounds each call to the delegate when the resident is done away with.
	tidyTimeout = 5 * time.Second
	// exitedGrace bounds what the resident's output may still bring once the delegate has said that it ended.
	exitedGrace = 5 * time.Second
)

// ErrForbidden is wrapped by the error of a Launch that the delegate, or a policy of its guest, does not allow.
var ErrForbidden = errors.New("the delegate, or a policy in its guest, does not let Metsuke run its supervisor in the container: " + whatToAllow)

const whatToAllow = "allow ExecProcess, ReadStream and WriteStream there, or run the pod under a handler of the delegate's own"

// errSilent is what may be behind a resident of which nothing was heard.
var errSilent = errors.New("a slow guest, or one whose policy denies its input or output: " + whatToAllow)

// errEnded says that the resident's output ended.
var errEnded = errors.New("the resident ended")

// Sink takes events and the count of folded denials; *stream.Writer is one. Its methods are those of
// supervisor.FoldSink.
type Sink interface {
	Fold(n uint64) error
	AppendFolded(ev *audit.Event, n uint64) error
}

// Config says what resident to run. All fields but Settings and StallTimeout are required.
type Config struct {
	Container string // id of the container
	Helper    string // path of the helper in it
	ExecID    string // of the hidden exec session: reserved, and not to be guessed
	Dir       string // for the FIFOs, on the host; it exists and is root's alone
	// Invoke calls a method of the delegate's Task API, version 2.
	Invoke func(ctx context.Context, method string, req, resp proto.Message) error
	Start  channel.Start // Secret is made here
	Sink   Sink

	// Settings returns Start.Settings, as they are when the resident is started.
	Settings func() []channel.Setting
	// StallTimeout bounds how long an event waits while Sink fails; 0 is 10 s.
	StallTimeout time.Duration
	// OnLoss is told that events are missing, or may be: once for a final loss, once per stall with Start.Continue. It
	// runs on a goroutine of its own and may call Close.
	OnLoss func(audit.Loss)
	// OnKillInit is told, once and on a goroutine of its own, that a rule kills the container's first process.
	OnKillInit func()
}

// Resident is the supervisor of one container. Its methods may be called concurrently.
type Resident struct {
	cfg    Config
	exec   hiddenExec
	pipes  pipes
	outbox outbox
	inbox  inbox
	keeper *keeper

	ready  chan struct{} // closed when hello is there
	hello  channel.Ready
	gone   chan struct{} // closed when nothing more comes from the resident; err says why
	err    error
	over   chan struct{} // closed when the container's end is known: the resident's own is normal then
	exited chan struct{} // closed when the delegate has said that the resident ended; status says how
	status uint32
	kept   chan struct{} // closed when all that came is in the stream, or counted as lost
	abort  chan struct{} // closed when nothing may wait any longer

	judged chan struct{} // closed when it is known whether the resident's end is a loss; death says so
	death  error

	killed   atomic.Uint64
	overOnce sync.Once
	initOnce sync.Once
	grace    time.Duration // endGrace; tests have less
	drain    time.Duration // drainGrace; tests have less
	patience time.Duration // controlTimeout; tests have less
	asking   chan struct{} // has a token for each of controls
	wg       sync.WaitGroup

	life      context.Context // ends when Close begins
	endLife   context.CancelFunc
	closeOnce sync.Once

	mu        sync.Mutex
	launching chan struct{}                  // guarded by mu, as all below; closed when Launch returns; nil: it was not called
	closed    bool                           //
	armed     bool                           // an Arm was sent: a workload may run
	lastID    uint64                         //
	launches  map[uint64]*Pending            // that the resident has not ended
	controls  map[uint64]chan channel.Report // that it has not answered
}

// New returns a Resident that is not launched. Close gives back what it holds.
func New(cfg Config) (*Resident, error) {
	if cfg.Container == "" || cfg.Helper == "" || cfg.ExecID == "" || cfg.Dir == "" || cfg.Invoke == nil || cfg.Sink == nil ||
		cfg.OnLoss == nil || cfg.OnKillInit == nil {
		return nil, errors.New("resident: the configuration is not complete")
	}
	rand.Read(cfg.Start.Secret[:]) // never fails: crypto/rand ends the process instead
	if err := channel.Check(cfg.Start); err != nil {
		return nil, fmt.Errorf("resident: what it is to start with: %w", err)
	}
	r := &Resident{
		cfg: cfg, exec: hiddenExec{container: cfg.Container, id: cfg.ExecID, helper: cfg.Helper, invoke: cfg.Invoke},
		pipes: pipes{
			stdin: filepath.Join(cfg.Dir, "stdin"), stdout: filepath.Join(cfg.Dir, "stdout"),
			stderr: filepath.Join(cfg.Dir, "stderr"), timeout: sendTimeout,
		},
		ready: make(chan struct{}), gone: make(chan struct{}), over: make(chan struct{}), exited: make(chan struct{}),
		kept: make(chan struct{}), abort: make(chan struct{}), judged: make(chan struct{}), grace: endGrace, drain: drainGrace,
		patience: controlTimeout, asking: make(chan struct{}, maxControls),
		launches: map[uint64]*Pending{}, controls: map[uint64]chan channel.Report{},
	}
	r.life, r.endLife = context.WithCancel(context.Background())
	r.outbox.init()
	r.inbox.init()
	r.keeper = newKeeper(cfg, r.abort)
	return r, nil
}

// Launch starts the resident and returns what it says once it is ready: its socket is there, the limits are in force.
// The container must have been started. After an error only Close is left to do; the error says what the delegate
// refused, what the resident said, or how it ended. It wraps ErrForbidden if exec sessions are not allowed, and ctx's
// error if that ended first.
func (r *Resident) Launch(ctx context.Context) (channel.Ready, error) {
	launching := make(chan struct{})
	defer close(launching)
	r.mu.Lock()
	if r.closed || r.launching != nil {
		r.mu.Unlock()
		return channel.Ready{}, errors.New("supervisor in a container: it was launched or closed before")
	}
	r.launching = launching
	r.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.life, func() { cancel(rendezvous.ErrClosed) })()

	r.wg.Go(r.keep)
	err := r.launch(ctx)
	if err != nil {
		err = fmt.Errorf("supervisor in container %s: %w", r.cfg.Container, err)
		r.end(err)
		r.pipes.finish(0)
		return channel.Ready{}, err
	}
	return r.hello, nil
}

func (r *Resident) launch(ctx context.Context) error {
	if err := r.pipes.create(); err != nil {
		return err
	}
	r.wg.Go(r.receive)
	if err := r.exec.start(ctx, &r.pipes); err != nil {
		return err
	}
	start := r.cfg.Start
	if r.cfg.Settings != nil {
		start.Settings = r.cfg.Settings()
	}
	r.outbox.put(start)
	r.wg.Go(r.send)
	select {
	case <-r.ready:
		return nil
	case <-r.gone:
		if r.isReady() {
			return nil // it was, and what is asked of it fails
		}
		return r.notReady(ctx)
	case <-ctx.Done():
		return fmt.Errorf("it was started and says nothing (%w): %w", errSilent, context.Cause(ctx))
	}
}

// notReady words the end of a resident that never was ready.
func (r *Resident) notReady(ctx context.Context) error {
	if !errors.Is(r.err, errEnded) {
		return r.err
	}
	select {
	case <-r.exited:
		return r.endedBeforeReady(r.status)
	case <-ctx.Done():
		return fmt.Errorf("%w before it was ready", r.err)
	case <-time.After(r.grace):
	}
	if status, ended := r.exec.endedWith(ctx); ended {
		return r.endedBeforeReady(status)
	}
	return fmt.Errorf("its output ended at once, though it did not: %w", ErrForbidden)
}

func (r *Resident) endedBeforeReady(status uint32) error {
	err := fmt.Errorf("%w with status %d before it was ready", r.err, status)
	if status == 128+uint32(unix.SIGKILL) {
		// A launcher that waits for it in vain takes the container with it.
		err = fmt.Errorf("%w: killed for want of memory, or with its container after nothing was heard of it (%w)", err, errSilent)
	}
	return err
}

// Stalls is how many events had to wait because the stream could not be written.
func (r *Resident) Stalls() uint64 { return r.keeper.stalls.Load() }

// Killed is how many events with verdict killed have come.
func (r *Resident) Killed() uint64 { return r.killed.Load() }

// whyGone returns why there is no resident to talk to, or nil. The caller holds r.mu.
func (r *Resident) whyGone() error {
	select {
	case <-r.gone:
		return r.err
	default:
	}
	if r.closed {
		return rendezvous.ErrClosed
	}
	return nil
}

// Close ends the resident: it is asked to stop, its last events are waited for (for two seconds at most), it is killed if
// it has not ended, and the exec session is deleted. Then nothing of it is left on the host. Calls of the container
// that would be notified get ENOSYS. Closing again does nothing but wait for the first.
func (r *Resident) Close(ctx context.Context) (err error) {
	r.closeOnce.Do(func() { err = r.close(ctx) })
	return err
}

func (r *Resident) close(ctx context.Context) error {
	r.mu.Lock()
	launching := r.launching
	r.closed = true
	r.mu.Unlock()
	r.endLife()
	if launching == nil {
		r.end(rendezvous.ErrClosed)
		return nil
	}
	<-launching
	drainCtx, cancel := context.WithTimeout(ctx, r.drain)
	err := r.Ended(drainCtx)
	cancel()
	err = errors.Join(err, r.exec.remove(ctx, r.hasExited()))
	close(r.abort)
	r.end(rendezvous.ErrClosed)
	r.pipes.finish(0)
	r.wg.Wait()
	return errors.Join(err, r.pipes.remove(r.cfg.Container))
}

func (r *Resident) hasExited() bool { return isClosed(r.exited) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
