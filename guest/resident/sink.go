// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

// foldPause is the least time between two Folds: a flood of denials must not become a flood of frames.
const foldPause = 50 * time.Millisecond

// keepRecord is the size of an encoding buffer that is kept: nearly all records are smaller.
const keepRecord = 16 << 10

var (
	errNoCredit = errors.New("the host has too much to write already")
	errStopped  = errors.New("the resident stops")
)

// sink sends events to the host. No more bytes than the credit are on their way, or not written yet: the host promises to
// take that many off the pipe whatever its disk does. So audited calls wait here for room, in their order, and with ordered
// delivery for the word that their record is in the stream. Denials, which are few records as equal ones are counted, take what room
// there is before any that waits; if there is none they are counted too.
type sink struct {
	tell    func(channel.Message) // sends; if that fails, it does not return
	ordered bool
	credit  int

	mu       sync.Mutex // held while sending, so that events are in the order of their numbers; guards all below
	changed  sync.Cond  // of mu: turn or open changed, or stopped
	stopped  bool
	next     uint64 // ticket of the next audited call
	turn     uint64 // ticket whose call may be sent
	seq      uint64 // of the last event
	open     int    // bytes that are not acknowledged
	sent     []unacknowledged
	idle     []chan struct{} // for further waits
	buf      []byte
	zero     audit.Identity // the host puts its own there
	untold   uint64         // folded denials that the host has not heard of
	told     time.Time      // when it last did
	willTell bool           // a timer is set
}

// unacknowledged is an event that the host has not acknowledged.
type unacknowledged struct {
	seq  uint64
	size int
	done chan struct{} // gets a token when it is; nil: nobody waits
}

func newSink(tell func(channel.Message), ordered bool, credit int) *sink {
	s := &sink{tell: tell, ordered: ordered, credit: credit}
	s.changed.L = &s.mu
	return s
}

// Append implements supervisor.Sink: it blocks until the call may go on. It fails only after stop.
func (s *sink) Append(ev *audit.Event) error {
	s.mu.Lock()
	ticket := s.next
	s.next++
	record := s.encode(ev)
	for !s.stopped && (s.turn != ticket || !s.fits(len(record))) {
		s.changed.Wait()
		record = s.encode(ev) // the buffer was others' meanwhile
	}
	s.turn++
	if s.turn != s.next {
		s.changed.Broadcast()
	}
	if s.stopped {
		s.mu.Unlock()
		return errStopped
	}
	var done chan struct{}
	if s.ordered {
		done = s.waiter()
	}
	s.send(record, 0, done)
	s.mu.Unlock()
	if done == nil {
		return nil
	}
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errStopped
	}
	s.idle = append(s.idle, done)
	return nil
}

// AppendFolded implements supervisor.FoldSink: it never waits for the host.
func (s *sink) AppendFolded(ev *audit.Event, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.encode(ev)
	if !s.fits(len(record)) {
		return errNoCredit
	}
	if n > 0 {
		s.tellFolded()
	}
	s.send(record, n, nil)
	return nil
}

// Fold implements supervisor.FoldSink.
func (s *sink) Fold(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untold += n
	if s.willTell {
		return nil
	}
	wait := foldPause - time.Since(s.told)
	if wait <= 0 {
		s.tellFolded()
		return nil
	}
	s.willTell = true
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.willTell = false
		s.tellFolded()
	})
	return nil
}

// flush tells what was folded last, before the end.
func (s *sink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellFolded()
}

// tellFolded sends the count of folded denials. The caller holds mu.
func (s *sink) tellFolded() {
	if s.untold > 0 {
		s.tell(channel.Fold{N: s.untold})
		s.untold, s.told = 0, time.Now()
	}
}

// acknowledge notes that all events up to seq are in the stream.
func (s *sink) acknowledge(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq > s.seq {
		return fmt.Errorf("the host acknowledges event %d, the last one is %d", seq, s.seq)
	}
	n := 0
	for n < len(s.sent) && s.sent[n].seq <= seq {
		s.open -= s.sent[n].size
		if s.sent[n].done != nil {
			s.sent[n].done <- struct{}{}
		}
		n++
	}
	s.sent = append(s.sent[:0], s.sent[n:]...)
	if s.turn != s.next {
		s.changed.Broadcast()
	}
	return nil
}

// stop ends all waits: their calls are not to go on, and the closing of their listeners sees to that.
func (s *sink) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for i := range s.sent {
		if s.sent[i].done != nil {
			s.sent[i].done <- struct{}{}
			s.sent[i].done = nil
		}
	}
	s.changed.Broadcast()
}

// encode returns the record as the host wants it, which is valid until mu is given up.
func (s *sink) encode(ev *audit.Event) []byte {
	record := ev.AppendJSON(s.buf[:0], &s.zero, 1)
	if cap(record) <= keepRecord {
		s.buf = record
	}
	return record
}

func (s *sink) fits(size int) bool { return s.open+size <= s.credit }

func (s *sink) send(record []byte, folded uint64, done chan struct{}) {
	s.seq++
	s.open += len(record)
	s.sent = append(s.sent, unacknowledged{s.seq, len(record), done})
	s.tell(channel.Event{Seq: s.seq, Folded: folded, Record: record})
}

// waiter returns a channel with room for a token.
func (s *sink) waiter() chan struct{} {
	if last := len(s.idle) - 1; last >= 0 {
		c := s.idle[last]
		s.idle = s.idle[:last]
		return c
	}
	return make(chan struct{}, 1)
}
