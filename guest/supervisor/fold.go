// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

// Equal denials are recorded one by one as long as they are few, and counted when they are many, so that neither a
// flood fills the disk nor a total is lost. Each key has a bucket of foldBurst records which regains one a second;
// what finds it empty is counted, and the count is written once a second. A key thus writes two records a second
// at most, however long the flood lasts.
const (
	foldBurst  = 8
	foldRefill = time.Second
	foldWindow = time.Second // between the first folded denial and its record
	maxFolds   = 64          // keys of a session; further ones share one
)

// foldKey is what makes denials equal. Arguments and callers do not count: a flood would vary them.
type foldKey struct {
	rule    string
	arch    seccomp.Arch
	nr      int32
	errno   uint16
	verdict audit.Verdict
}

// Words of the record of denials that came when all keys were in use.
const (
	otherSyscall = "(several)"
	otherNr      = -1
)

type fold struct {
	tokens   int
	refilled time.Time

	count       uint64
	first, last time.Time
	sample      audit.Syscall // of the first that was folded; owns its strings
	other       bool
}

// folds is one session's table. It belongs to the session's goroutine.
type folds struct {
	byKey   map[foldKey]*fold
	other   fold
	waiting uint64    // sum of all counts
	due     time.Time // when the earliest is to be written; only if waiting
	failing time.Time // since when writing fails; zero: it does not
	sink    FoldSink  // nil: nobody keeps the count
}

func newFolds(sink FoldSink) folds {
	return folds{byKey: map[foldKey]*fold{}, other: fold{other: true}, sink: sink}
}

// hit finds the fold of a denial, and tells whether it is to be recorded as a single one.
func (t *folds) hit(key foldKey, now time.Time) (f *fold, single bool) {
	f = t.byKey[key]
	if f == nil {
		if len(t.byKey) >= maxFolds && !t.makeRoom(now) {
			return &t.other, false
		}
		f = &fold{tokens: foldBurst, refilled: now}
		t.byKey[key] = f
	}
	f.refill(now)
	if f.tokens == 0 {
		return f, false
	}
	f.tokens--
	return f, true
}

func (f *fold) refill(now time.Time) {
	gained := int(min(now.Sub(f.refilled)/foldRefill, foldBurst))
	if gained <= 0 {
		return
	}
	f.refilled = now
	f.tokens = min(f.tokens+gained, foldBurst)
}

// makeRoom removes a key that a new one would not differ from: nothing counted, its bucket full.
func (t *folds) makeRoom(now time.Time) bool {
	for key, f := range t.byKey {
		if f.refill(now); f.count == 0 && f.tokens == foldBurst {
			delete(t.byKey, key)
			return true
		}
	}
	return false
}

// add counts a denial. sample describes it; it is looked at only if it is the first since the last record.
func (t *folds) add(f *fold, now time.Time, sample *audit.Syscall) {
	if f.count == 0 {
		f.first = now
		f.keep(sample)
		if due := now.Add(foldWindow); t.waiting == 0 || due.Before(t.due) {
			t.due = due
		}
	}
	f.count++
	f.last = now
	t.waiting++
	if t.sink != nil {
		_ = t.sink.Fold(1) // a denial is answered whatever happens
	}
}

// keep copies a sample, whose strings are overwritten by the next call.
func (f *fold) keep(sample *audit.Syscall) {
	args := f.sample.Args[:0]
	for _, a := range sample.Args {
		a.Value = strings.Clone(a.Value)
		args = append(args, a)
	}
	f.sample = *sample
	f.sample.Comm, f.sample.Exe = strings.Clone(sample.Comm), strings.Clone(sample.Exe)
	f.sample.Syscall = strings.Clone(sample.Syscall)
	f.sample.Args = args
	if f.other {
		f.sample.Syscall, f.sample.Nr, f.sample.Errno, f.sample.RuleID, f.sample.Args = otherSyscall, otherNr, "", "", nil
	}
}

// timeout says how long the session may wait for calls before it has to write; negative: for ever.
func (t *folds) timeout() time.Duration {
	if t.waiting == 0 {
		return -1
	}
	return max(time.Until(t.due), 0)
}

// abandon forgets all that is counted and returns how much it was.
func (t *folds) abandon() uint64 {
	n := t.waiting
	t.waiting = 0
	clear(t.byKey)
	t.other.count = 0
	return n
}

// flush writes the folds that are due, or all. What cannot be written stays counted and is tried again a second
// later; if that goes on for longer than StallTimeout, the stream counts as lost.
func (s *Session) flush(now time.Time, all bool) {
	t := &s.folds
	if t.waiting == 0 || !all && now.Before(t.due) {
		return
	}
	t.due = now.Add(foldWindow)
	for _, f := range t.byKey {
		if !s.flushOne(f, now, all) {
			return
		}
	}
	s.flushOne(&t.other, now, all)
}

// flushOne returns false if the sink fails.
func (s *Session) flushOne(f *fold, now time.Time, all bool) bool {
	t := &s.folds
	if f.count == 0 {
		return true
	}
	if due := f.first.Add(foldWindow); !all && now.Before(due) {
		if due.Before(t.due) {
			t.due = due
		}
		return true
	}
	f.sample.Count, f.sample.Until = f.count, f.last
	err := s.sup.appendNow(&audit.Event{Time: f.first, Exec: s.exec, Kind: audit.KindSyscall, Syscall: &f.sample}, f.count)
	if err != nil {
		if t.failing.IsZero() {
			t.failing = now
		} else if now.Sub(t.failing) >= s.sup.opts.StallTimeout {
			s.sup.lose(audit.LossStream, 0, err)
		}
		t.due = now.Add(foldWindow)
		return false
	}
	t.failing = time.Time{}
	s.sup.counters.events.Add(1)
	t.waiting -= f.count
	f.count = 0
	return true
}
