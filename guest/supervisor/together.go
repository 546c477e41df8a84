// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp/notify"
)

// Where a record has to be on a disk before its call goes on, a session does not wait for each: it writes the records of all calls that are
// there, waits once, and lets them all go on. Calls that come while it waits are the next ones.

// maxWaiting bounds the calls that wait together.
const maxWaiting = 256

// waitingCall is a call whose record is written and not kept yet.
type waitingCall struct {
	req    notify.Request
	ticket audit.Ticket
}

// putOff writes the event of the call in s.req, and has it wait for commit. It returns false if that cannot be done: then record has to.
func (s *Session) putOff() bool {
	sup := s.sup
	if sup.loss.final.Load() || sup.loss.lossy.Load() || sup.recordLoss() != nil {
		return false
	}
	ticket, err := sup.opts.Synced.Put(&s.event, 0)
	if err != nil {
		return false
	}
	s.waiting = append(s.waiting, waitingCall{s.req, ticket})
	return true
}

// commit waits until the records of all waiting calls are kept, and lets the calls go on. A call whose record is not, is recorded once more,
// by itself.
func (s *Session) commit() error {
	waiting := s.waiting
	s.waiting = s.waiting[:0]
	for i := range waiting {
		s.req = waiting[i].req
		call := s.dec.form(&s.req.Data)
		err := s.sup.opts.Synced.Commit(waiting[i].ticket)
		if err == nil {
			s.sup.counters.events.Add(1)
			s.sup.counters.audited.Add(1)
			s.ids.changes(s.req.PID, call)
			err = s.proceed()
		} else {
			s.now = time.Now()
			decision := s.sup.opts.Program.Decide(&s.req.Data)
			s.describe(call, &decision, audit.VerdictAllowed)
			if err = notify.ErrVanished; s.listener.Valid(s.req.ID) {
				err = s.recordAndProceed(call, false)
			}
		}
		if err := s.handled(err); err != nil {
			return err
		}
	}
	return nil
}
