// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// What the resident says about time is taken as far as it is likely. An event is older than its arrival by the time that
// it waited for credit or that the container was paused, and its clock may be off; beyond these bounds the time of its
// arrival is put in its place.
const (
	maxAhead  = time.Second
	maxBehind = time.Minute
)

// readEvent reads a record of the resident: exactly what our encoder makes of a system call or a loss, of nobody, and
// nothing that only the host can know.
func readEvent(it item) (*audit.Event, error) {
	rec, err := record.ParseStrict(it.event.Record)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", it.event.Seq, err)
	}
	ev := &rec.Event
	if rec.Identity != (audit.Identity{}) || rec.Chain != "" {
		err = errors.New("it claims an identity")
	} else {
		err = checkEvent(ev, it.event.Folded)
	}
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", it.event.Seq, err)
	}
	settleTime(ev, it.at)
	return ev, nil
}

func checkEvent(ev *audit.Event, folded uint64) error {
	switch {
	case ev.Syscall != nil:
		return checkSyscall(ev.Syscall, folded)
	case ev.Loss != nil:
		l := ev.Loss
		if l.Reason != audit.LossSupervisor && l.Reason != audit.LossStream || l.Bytes != 0 || l.Count < folded {
			return fmt.Errorf("a loss of %d events and %d bytes (%s) is not the resident's to tell", l.Count, l.Bytes, l.Reason)
		}
		return nil
	}
	return fmt.Errorf("kind %s is not the resident's to tell", ev.Kind)
}

func checkSyscall(s *audit.Syscall, folded uint64) error {
	if !audit.KnownVerdict(string(s.Verdict)) {
		return fmt.Errorf("verdict %q", s.Verdict)
	}
	for _, a := range s.Args {
		if !slices.ContainsFunc(audit.Evidences(), func(t audit.Term) bool { return t.Name == string(a.Evidence) }) {
			return fmt.Errorf("evidence %q", a.Evidence)
		}
	}
	if folded != 0 && (s.Verdict == audit.VerdictAllowed || max(s.Count, 1) != folded) || folded == 0 && s.Count > 1 {
		return fmt.Errorf("%d calls, %d of them counted before", max(s.Count, 1), folded)
	}
	return nil
}

// settleTime puts an event's times within the bounds.
func settleTime(ev *audit.Event, at time.Time) {
	at = at.UTC()
	likely := func(t time.Time) bool { return !t.After(at.Add(maxAhead)) && !t.Before(at.Add(-maxBehind)) }
	if !likely(ev.Time) {
		ev.Time = at
	}
	if s := ev.Syscall; s != nil && s.Count > 1 && (!likely(s.Until) || s.Until.Before(ev.Time)) {
		s.Until = ev.Time
		if at.After(ev.Time) {
			s.Until = at
		}
	}
}
