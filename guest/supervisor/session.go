// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp/notify"
)

// endGrace is how long a session whose processes are gone tries to write what it has counted, before that is a loss.
const endGrace = time.Second

// Session serves the listener of one process tree on one goroutine. Its exported methods are safe for concurrent use.
type Session struct {
	sup      *Supervisor
	exec     string
	leader   Leader
	listener *notify.Listener
	started  chan struct{}
	done     chan struct{}

	stopMu sync.Mutex
	stopFD int // protected by stopMu for writers; -1 when the session is over

	// The rest belongs to the serving goroutine, and is reused from call to call: serving allocates nothing.
	wait    int // stopFD, for the serving goroutine
	running bool
	now     time.Time
	req     notify.Request
	waiting []waitingCall // calls whose records are not kept yet
	ids     identities
	dec     decoder
	folds   folds
	event   audit.Event
	syscall audit.Syscall

	err error // set before done is closed
}

func newSession(sup *Supervisor, l *notify.Listener, stop int, leader Leader, exec string) *Session {
	s := &Session{
		sup: sup, exec: exec, leader: leader, listener: l, stopFD: stop, wait: stop,
		started: make(chan struct{}), done: make(chan struct{}),
	}
	s.ids = newIdentities(sup.proc, &sup.watched)
	s.dec = newDecoder(sup.proc)
	s.folds = newFolds(sup.foldSink)
	s.event = audit.Event{Exec: exec, Kind: audit.KindSyscall, Syscall: &s.syscall}
	return s
}

// Exec returns the id that Attach was given.
func (s *Session) Exec() string { return s.exec }

// Started is closed when the workload's first exec has been recorded and is allowed to go on. It may still fail in
// the kernel, which the launcher then reports.
func (s *Session) Started() <-chan struct{} { return s.started }

// Done is closed when the session is over: its last task has ended, its supervisor was closed, or serving failed.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why serving failed, once Done is closed; nil if it did not.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// stopServing wakes the serving goroutine for good: the event stays readable.
func (s *Session) stopServing() {
	s.stopMu.Lock()
	defer s.stopMu.Unlock()
	if s.stopFD >= 0 {
		// Cannot fail: the counter of an eventfd holds more than all writes of a life.
		_, _ = unix.Write(s.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// run serves until the end and then gives everything back. A failure, or a panic that should not be possible, closes
// the listener, so that the kernel refuses what would be unwatched, and is reported as a loss.
func (s *Session) run() {
	defer close(s.done)
	defer s.sup.ended(s)
	if err := s.guarded(s.serve); err != nil {
		s.err = err
	}
	if err := s.guarded(s.finish); err != nil && s.err == nil {
		s.err = err
	}
	if s.err != nil {
		s.sup.failed(s.exec, s.err)
	}
}

func (s *Session) guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("supervisor session %q: panic: %v", s.exec, r)
		}
	}()
	return f()
}

// serve handles calls until the tree is gone or the session is stopped.
func (s *Session) serve() error {
	for {
		timeout := s.folds.timeout()
		if len(s.waiting) > 0 {
			timeout = 0 // only those that are there already wait together
		}
		ready, err := s.listener.Wait(s.wait, timeout)
		switch {
		case err != nil:
			return err
		case ready&notify.Stopped != 0:
			return nil
		case ready&notify.Ready != 0:
			if err := s.serveOne(); err != nil {
				return err
			}
		case ready&notify.Gone != 0:
			return nil
		}
		if n := len(s.waiting); n > 0 && (ready&notify.Ready == 0 || n == maxWaiting) {
			if err := s.commit(); err != nil {
				return err
			}
		}
		if s.folds.waiting > 0 {
			s.flush(time.Now(), false)
		}
	}
}

func (s *Session) serveOne() error {
	switch err := s.listener.Receive(&s.req); {
	case err == nil:
	case errors.Is(err, notify.ErrVanished):
		s.sup.counters.vanished.Add(1)
		return nil
	default:
		return err
	}
	return s.handled(s.handle())
}

// handled says what an error of handling the request in s.req means for the session.
func (s *Session) handled(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, notify.ErrVanished):
		// The caller was killed while we worked. It did not run the call.
		s.ids.drop(s.req.PID)
		s.sup.counters.vanished.Add(1)
		return nil
	case errors.Is(err, errStopped):
		return nil // Wait sees the stop too, and Close must not find the call answered
	default:
		return err
	}
}

// finish closes the listener first: nothing may wait for the last records.
func (s *Session) finish() error {
	defer s.closeStop()
	err := s.listener.Close()
	s.ids.close()
	s.dec.mem.close()
	s.flush(time.Now(), true)
	for end := time.Now().Add(endGrace); s.folds.waiting > 0 && time.Now().Before(end) && !s.stoppedWithin(lastBackoff); {
		s.flush(time.Now(), true)
	}
	s.sup.abandon(&s.folds)
	return err
}

func (s *Session) closeStop() {
	s.stopMu.Lock()
	defer s.stopMu.Unlock()
	_ = unix.Close(s.stopFD)
	s.stopFD = -1
}
