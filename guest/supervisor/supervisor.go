// SPDX-License-Identifier: Apache-2.0

// Package supervisor serves the seccomp listeners of one container: it receives each notified call, decides by its
// registers, writes the event, and only then answers.
//
//	wait ─► receive ─► decide ─┬─ own bookkeeping ──────────────► forget identity ─────► continue
//	                           ├─ audited ─► identity, arguments ─► valid? ─► sink ────► continue
//	                           └─ denied ──► sink, or folded into a count ─────────────► errno, or SIGKILL
//
// A container has one Supervisor and one Session per process tree that a launcher started: the container's own, and
// one per exec session. A session is one goroutine and its own listener, so whatever the workload does to slow its
// supervisor down (page faults that it serves itself, floods) slows itself. Sessions share nothing but the sink
// and counters, and a session reads the workload's memory, files under /proc and clocks without holding a lock.
//
// Everything that is read from the workload is hostile: it is bounded, never decides a verdict, and belongs to the
// caller only because the notification is still valid after the last read.
package supervisor

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify"
)

// DefaultStallTimeout is how long an audited call waits for a stream that cannot be written, if the options do not
// say.
const DefaultStallTimeout = 10 * time.Second

// closeGrace bounds how long Close waits for a session that is stuck in a read of the workload's memory.
const closeGrace = 2 * time.Second

// Decider tells what a notified call means, from its number, architecture and registers alone. It must be total, safe
// for concurrent use, and must not keep its argument. *seccomp.Program is one.
type Decider interface {
	Decide(*seccomp.Data) seccomp.Decision
}

// Sink takes events. Append returns when the event is kept, or an error if it is not, and may then be called again
// with the same event. It is called from several goroutines, and may block for long: what waits is the audited call of one
// session. It must not keep the event or any of its strings: they are overwritten after it has returned.
type Sink interface {
	Append(*audit.Event) error
}

// FoldSink is a Sink for which denials, and records of losses, never wait; *stream.Writer is one. It counts the
// denials which were answered and are not yet in the stream, where a crash cannot lose the count. Fold counts n of them,
// AppendFolded is Append for a record that stands for n of them, n being 0 for a denial that was not folded. Neither
// blocks for anything but the machine. A denial does not wait for an error of Fold to go away.
type FoldSink interface {
	Sink
	Fold(n uint64) error
	AppendFolded(ev *audit.Event, n uint64) error
}

// SyncedSink is a FoldSink whose events are kept when they are on a disk; *stream.Writer is one. Put is AppendFolded without the wait for
// that, and Commit waits: an error of it says that the event is not kept after all. Who puts several events waits once for all of them.
type SyncedSink interface {
	FoldSink
	Put(ev *audit.Event, n uint64) (audit.Ticket, error)
	Commit(audit.Ticket) error
}

// Options say what a supervisor enforces and where its events go. Program and Sink are required.
type Options struct {
	Program Decider
	Sink    Sink // a FoldSink, if it has those methods

	// Synced is Sink, if its events wait for a disk: calls that are made at the same time then wait together. nil: they do not.
	Synced SyncedSink

	// StallTimeout bounds how long an audited call waits while Sink fails; 0 is DefaultStallTimeout.
	StallTimeout time.Duration

	// Continue is the profile's `onLoss: continue`: after StallTimeout audited calls go on unrecorded and are
	// counted. Otherwise the loss is final: from then on no audited call of the container ever runs, its process is
	// killed, and OnLoss is expected to kill the rest.
	Continue bool

	// KillInit is for a supervisor in the container's own pid namespace, whose first process takes no signal from it: it
	// asks for that process to be killed from outside. The call that a rule kills stays pending until then. It is called
	// for each such call, on the session's goroutine.
	KillInit func()

	// OnLoss is told that events are missing, or may be: once for a final loss, once per stall with Continue, and
	// once per session whose serving failed. It runs on a goroutine of its own and may call Close.
	OnLoss func(audit.Loss)
}

// Supervisor serves one container. Its methods are safe for concurrent use.
type Supervisor struct {
	opts     Options
	foldSink FoldSink // nil if opts.Sink is none
	proc     *procFS
	counters counters
	loss     lossState
	watched  atomic.Int64 // entries of the identity caches of all sessions

	release sync.Once // of proc

	mu       sync.Mutex
	closed   bool                  // protected by mu
	sessions map[*Session]struct{} // protected by mu
}

// ErrClosed is returned by Attach after Close.
var ErrClosed = errors.New("supervisor is closed")

// New returns a supervisor that serves nothing yet. It fails if the options are incomplete or /proc cannot be used.
func New(opts Options) (*Supervisor, error) {
	if opts.Program == nil || opts.Sink == nil {
		return nil, errors.New("supervisor: a program and a sink are required")
	}
	if opts.StallTimeout <= 0 {
		opts.StallTimeout = DefaultStallTimeout
	}
	proc, err := openProcFS()
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	foldSink, _ := opts.Sink.(FoldSink)
	return &Supervisor{opts: opts, foldSink: foldSink, proc: proc, sessions: map[*Session]struct{}{}}, nil
}

// Leader is the process that installed a filter and is about to exec the workload.
type Leader struct {
	PID int // in our pid namespace; 0: not known, then the first exec may come from any thread of the tree
}

// Attach takes over a listener's descriptor and begins to serve it: it is served when Attach returns, so the launcher
// may be told that it is armed. exec is the id of the exec session, empty for the container's own process tree. On
// error the descriptor stays the caller's.
func (s *Supervisor) Attach(listener int, leader Leader, exec string) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	l, err := notify.NewListener(listener)
	if err != nil {
		return nil, fmt.Errorf("attach session %s: %w", strconv.Quote(exec), err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("attach session %s: make stop event: %w", strconv.Quote(exec), err)
	}
	session := newSession(s, l, stop, leader, exec)
	s.sessions[session] = struct{}{}
	s.counters.sessions.Add(1)
	go session.run()
	return session, nil
}

// Close ends all sessions: what they have folded is written, their listeners are closed, and calls that the filters
// still hand over fail with ENOSYS. It waits for the sessions to end, but no longer than two seconds for one that is
// stuck in a read of the workload's memory; that one ends by itself when its process tree does, and Close says so.
// Losses that are not recorded yet get a last attempt. Closing again is no error.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	s.closed = true
	open := make([]*Session, 0, len(s.sessions))
	for session := range s.sessions {
		open = append(open, session)
	}
	s.mu.Unlock()
	for _, session := range open {
		session.stopServing()
	}
	deadline := time.NewTimer(closeGrace)
	defer deadline.Stop()
	for i, session := range open {
		select {
		case <-session.done:
		case <-deadline.C:
			return fmt.Errorf("supervisor: %d sessions are stuck in reads of the workload's memory; they end with its processes",
				len(open)-i)
		}
	}
	s.release.Do(s.proc.close)
	if err := s.recordLoss(); err != nil {
		return fmt.Errorf("supervisor: record what was lost: %w", err)
	}
	return nil
}

// ended forgets a session that is over.
func (s *Supervisor) ended(session *Session) {
	s.mu.Lock()
	delete(s.sessions, session)
	last := s.closed && len(s.sessions) == 0
	s.mu.Unlock()
	s.counters.sessions.Add(-1)
	if last {
		s.release.Do(s.proc.close) // Close may have given up on us
	}
}
