// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp/notify"
)

// What becomes of a call while the sink fails:
//
//	call       until StallTimeout              after it, onLoss kill        after it, onLoss continue
//	audited    waits (killable, unfreezable)   never runs; process killed   goes on; counted as lost
//	denied     denied at once, folded          denied at once, folded       denied at once, folded
//	kill       killed at once, folded          killed at once, folded       killed at once, folded
//	tracking   goes on                         goes on                      goes on
//
// When the sink works again, the first thing that is written is a loss record with the count of what is missing.
// Folded denials are not missing: they are kept and counted until they are written, and become a loss only if their
// session ends first. A kill is final: events of denials are still written if the sink recovers, but the container
// never runs another audited call. If serving fails (a broken listener, a panic), the session's listener is closed,
// so that its audited and denied calls all fail with ENOSYS, and the profile's onLoss follows.

// Backoff between attempts to write, for one stalled call.
const (
	firstBackoff = time.Millisecond
	lastBackoff  = 50 * time.Millisecond
)

const (
	onLossKill     = "kill"
	onLossContinue = "continue"
)

var (
	errStopped = errors.New("session stopped")
	errLost    = errors.New("the stream is lost")
)

// lossState is what is missing in the stream and not yet told in it.
type lossState struct {
	final atomic.Bool   // onLoss kill was called for
	lossy atomic.Bool   // onLoss continue is in effect: audited calls no longer wait
	due   atomic.Bool   // a loss record must come before any other
	count atomic.Uint64 // written under mu

	mu     sync.Mutex // held while the loss record is written, so that none is written twice; whoever only counts does not wait for it
	reason string     // protected by mu; of the first loss since the last record
	detail string     // protected by mu
	folded uint64     // protected by mu; part of count that the sink counts as folded
}

func (l *lossState) add(reason, detail string, n, folded uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.due.Load() {
		l.reason, l.detail = reason, detail
	}
	l.count.Add(n)
	l.folded += folded
	l.due.Store(true)
}

func (o *Options) onLoss() string {
	if o.Continue {
		return onLossContinue
	}
	return onLossKill
}

// append writes the event of an audited call, and before it the loss that the stream does not tell yet. It blocks as the
// sink does.
func (s *Supervisor) append(ev *audit.Event) error {
	if err := s.recordLoss(); err != nil {
		return err
	}
	return s.opts.Sink.Append(ev)
}

// appendNow does the same for what never waits: a denial, or a record that stands for n folded ones.
func (s *Supervisor) appendNow(ev *audit.Event, n uint64) error {
	if err := s.recordLoss(); err != nil {
		return err
	}
	return s.sinkNow(ev, n)
}

func (s *Supervisor) sinkNow(ev *audit.Event, n uint64) error {
	if s.foldSink != nil {
		return s.foldSink.AppendFolded(ev, n)
	}
	return s.opts.Sink.Append(ev)
}

// recordLoss writes the loss record if one is due.
func (s *Supervisor) recordLoss() error {
	l := &s.loss
	if !l.due.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.due.Load() {
		return nil
	}
	loss := audit.Loss{Reason: l.reason, Count: l.count.Load(), Detail: l.detail}
	if l.final.Load() || l.lossy.Load() {
		loss.OnLoss = s.opts.onLoss()
	}
	if err := s.sinkNow(&audit.Event{Time: time.Now(), Kind: audit.KindLoss, Loss: &loss}, l.folded); err != nil {
		return err
	}
	l.count.Store(0)
	l.folded = 0
	l.lossy.Store(false)
	l.due.Store(false)
	return nil
}

// lose counts n events that will never be written and starts what the profile wants.
func (s *Supervisor) lose(reason string, n uint64, detail error) {
	s.counters.lost.Add(n)
	s.loss.add(reason, detail.Error(), n, 0)
	began := &s.loss.final
	if s.opts.Continue {
		began = &s.loss.lossy
	}
	if !began.Swap(true) {
		s.tellLoss(reason, n, detail)
	}
}

// failed reports that a session cannot be served any more.
func (s *Supervisor) failed(exec string, detail error) {
	s.loss.add(audit.LossSupervisor, detail.Error(), 0, 0)
	if !s.opts.Continue {
		s.loss.final.Store(true)
	}
	s.tellLoss(audit.LossSupervisor, 0, detail)
	_ = s.recordLoss() // if it fails, it stays due
}

func (s *Supervisor) tellLoss(reason string, n uint64, detail error) {
	if s.opts.OnLoss == nil {
		return
	}
	loss := audit.Loss{Reason: reason, Count: n, OnLoss: s.opts.onLoss(), Detail: detail.Error()}
	go s.opts.OnLoss(loss) // it may close us, which waits for the session that calls
}

// abandon takes over what a session could not write before its end.
func (s *Supervisor) abandon(f *folds) {
	if n := f.abandon(); n > 0 {
		s.counters.lost.Add(n)
		s.loss.add(audit.LossStream, "denials that were folded when their session ended", n, n)
	}
}

// record writes the session's event for a call that is to run. It returns nil if the call may go on; errLost if it
// must never; errStopped or notify.ErrVanished if nobody waits for the answer any more. It blocks while the sink
// fails, up to StallTimeout.
func (s *Session) record() error {
	sup := s.sup
	if sup.loss.final.Load() {
		sup.lose(audit.LossStream, 1, errLost)
		return errLost
	}
	err := sup.append(&s.event)
	if err == nil {
		sup.counters.events.Add(1)
		return nil
	}
	for backoff, began, first := firstBackoff, time.Now(), true; ; backoff = min(2*backoff, lastBackoff) {
		switch {
		case sup.loss.final.Load():
			sup.lose(audit.LossStream, 1, err)
			return errLost
		case sup.loss.lossy.Load():
			sup.lose(audit.LossStream, 1, err)
			return nil
		case time.Since(began) >= sup.opts.StallTimeout:
			sup.lose(audit.LossStream, 1, err)
			if sup.opts.Continue {
				return nil
			}
			return errLost
		}
		if first {
			sup.counters.stalls.Add(1)
			first = false
		}
		if s.stoppedWithin(backoff) {
			return errStopped
		}
		if !s.listener.Valid(s.req.ID) {
			return notify.ErrVanished
		}
		if err = sup.append(&s.event); err == nil {
			sup.counters.events.Add(1)
			return nil
		}
	}
}

// stoppedWithin sleeps, unless the session is stopped meanwhile.
func (s *Session) stoppedWithin(d time.Duration) bool {
	fds := [1]unix.PollFd{{Fd: int32(s.wait), Events: unix.POLLIN}}
	n, _ := unix.Poll(fds[:], int(max(d.Milliseconds(), 1)))
	return n > 0
}
