// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// ledgerWait is how long the ledger is waited for, which other processes have for microseconds.
const ledgerWait = 5 * time.Second

// unit is what is removed at once: a segment that is complete, or what is left of a stream that is closed.
type unit struct {
	subject *subject
	number  int // of the segment; of a whole stream its last one
	last    uint64
	whole   bool
	bytes   int64
	at      time.Time // of its last record
}

// reduce removes what is beyond the limits, the oldest first.
func (w *work) reduce(ctx context.Context, all []*subject) error {
	pods, node := map[string]int64{}, int64(0)
	for _, s := range all {
		pods[s.Pod] += s.bytes
		node += s.bytes
	}
	p := w.Policy
	over := func(pod string) string {
		switch {
		case p.PodSize > 0 && pods[pod] > p.PodSize:
			return "pod_size"
		case p.NodeSize > 0 && node > p.NodeSize:
			return "node_size"
		}
		return ""
	}
	var units []unit
	for _, s := range all {
		old := p.MaxAge > 0 && len(s.segments) > 0 && w.now().Sub(s.segments[0].mtime) > p.MaxAge
		if !old && over(s.Pod) == "" {
			continue
		}
		own, err := w.units(s)
		w.problem(s.Path, err)
		units = append(units, own...)
	}
	slices.SortStableFunc(units, func(a, b unit) int { return a.at.Compare(b.at) })
	plans, done := map[*subject]*plan{}, map[*subject]bool{}
	for _, u := range units {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason := over(u.subject.Pod)
		if p.MaxAge > 0 && w.now().Sub(u.at) > p.MaxAge {
			reason = cmp.Or(reason, "max_age")
		}
		if done[u.subject] || reason == "" {
			done[u.subject] = true // segments go in their order, or not at all
			continue
		}
		if w.Confirmed != nil && w.Confirmed(u.subject.name(), u.subject.told.id) < u.last {
			w.report.Backlog += u.bytes
			done[u.subject] = true
			continue
		}
		if err := u.asSigned(); err != nil {
			w.problem(u.subject.Path, err)
			done[u.subject] = true
			continue
		}
		pods[u.subject.Pod] -= u.bytes
		node -= u.bytes
		if plans[u.subject] == nil {
			plans[u.subject] = &plan{from: u.number}
		}
		plans[u.subject].add(u, reason)
	}
	return w.removeAll(ctx, all, plans)
}

// plan is what is removed of one stream.
type plan struct {
	from, to int
	last     uint64
	whole    bool
	bytes    int64
	reason   string
}

func (p *plan) add(u unit, reason string) {
	p.to, p.last, p.whole, p.bytes = u.number, u.last, u.whole, p.bytes+u.bytes
	p.reason = cmp.Or(p.reason, reason)
}

// units are what can be removed of a stream, in the order in which it must be.
func (w *work) units(s *subject) (units []unit, err error) {
	t, err := s.read(w.Keys)
	if err != nil || len(s.segments) == 0 {
		return nil, err
	}
	left := s.bytes
	if t.signed && w.Key == nil {
		return nil, errors.New("it is left as it is: there is no key to sign its removal with")
	}
	if t.signed {
		complete, err := s.complete(w.Keys)
		if err != nil {
			return nil, err
		}
		at := time.Time{}
		for _, p := range complete {
			c := t.lines[p.Number]
			if c == nil || c.Last == 0 { // what cannot be read is not confirmed either
				break
			}
			if c.To.IsZero() { // its writer was not there at its end
				c.To = p.mtime
			}
			if c.To.After(at) {
				at = c.To
			}
			units = append(units, unit{subject: s, number: p.Number, last: c.Last, bytes: p.bytes, at: at})
			left -= p.bytes
		}
	}
	if end, ok := w.end(s, t); ok {
		end.bytes = left
		units = append(units, end)
	}
	return units, nil
}

// asSigned says what of a unit is not what was signed: that is evidence, and nothing would tell of it once its removal is signed.
func (u *unit) asSigned() error {
	t := u.subject.told
	for i := range u.subject.segments {
		p := &u.subject.segments[i]
		if p.Number > u.number || p.Number < u.number && !u.whole || p.checked {
			continue
		}
		var err error
		switch c := t.lines[p.Number]; {
		case c != nil:
			err = p.check(c.Bytes, c.SHA256)
		case t.closed != nil && t.closed.At.Segment == p.Number:
			err = p.check(t.closed.At.Offset, "")
		}
		if err != nil {
			return err
		}
		p.checked = true
	}
	return nil
}

// end is a stream's last unit, if it is closed.
func (w *work) end(s *subject, t *told) (unit, bool) {
	u := unit{subject: s, whole: true, number: s.segments[len(s.segments)-1].Number}
	switch {
	case t.closed != nil && w.now().Sub(t.at) >= settled:
		u.last, u.at = t.closed.At.Seq, t.at
		return u, true
	case !t.signed && s.ended(w.Round):
		u.last, u.at = s.lastRecord().Seq, s.segments[len(s.segments)-1].mtime
		return u, true
	}
	return u, false
}

func (w *work) removeAll(ctx context.Context, all []*subject, plans map[*subject]*plan) error {
	for _, s := range all {
		p := plans[s]
		if p == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var err error
		removed := true
		switch {
		case w.DryRun:
		case p.whole:
			removed, err = w.removeStream(s, p.last)
		default:
			err = w.removeSegments(s, p)
		}
		if err != nil {
			w.problem(s.Path, err)
			continue
		}
		if !removed {
			continue
		}
		s.gone = p.whole
		s.bytes -= p.bytes
		w.did(Action{Kind: Removed, Stream: s.name(), From: p.from, To: p.to, Whole: p.whole, Before: p.bytes, Reason: p.reason})
	}
	return nil
}

// removeSegments says, signed, which segments go, and removes them.
func (w *work) removeSegments(s *subject, p *plan) error {
	file, err := os.OpenFile(filepath.Join(s.Path, manifest.RemovalsName), os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s: not a regular file", file.Name()))
	}
	j, err := journal.Open(file, manifest.RemovalsContext)
	if err != nil {
		return err
	}
	line := &manifest.Removal{ID: s.told.id, From: p.from, To: p.to, Last: p.last, Reason: p.reason}
	if err := errors.Join(j.Append(w.Key, line), file.Sync(), fsys.SyncDir(s.Path)); err != nil {
		return err
	}
	w.at("told")
	for n := p.from; n <= p.to; n++ {
		plain := filepath.Join(s.Path, stream.SegmentName(n))
		for _, path := range []string{plain + stream.CompressedSuffix, plain} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		w.at("unlinked")
	}
	return nil
}

// removeStream says in the ledger that the stream is removed, and removes it, unless a writer has it by now, or had it meanwhile: last is the
// number of the record with which it is to end.
func (w *work) removeStream(s *subject, last uint64) (removed bool, err error) {
	dir, err := stream.Lock(s.Path)
	if errors.Is(err, stream.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stream.Unlock(dir)) }()
	if s.told.signed {
		if !isLast(s.Path, s.told.hash) {
			return false, nil
		}
		at := s.told.closed.At
		line := &ledger.Entry{
			Kind: ledger.Removed, ID: s.told.id, Stream: s.name(), Manifest: s.told.line, Hash: s.told.hash, Seq: at.Seq, Chain: at.Chain, Ended: s.told.closed.End,
		}
		if _, err := ledger.Append(w.Root, w.Key, line, ledgerWait); err != nil {
			return false, err
		}
		if err := ledger.Sync(w.Root); err != nil {
			return false, err
		}
		w.at("told")
	}
	if !s.told.signed {
		if r := s.lastRecord(); r == nil || r.Seq != last {
			return false, nil
		}
	}
	yard := filepath.Join(w.Root, graveyard)
	if err := os.Mkdir(yard, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	// The name is one of its own: a stream with the same may follow it in the same round.
	grave, err := os.MkdirTemp(yard, "")
	if err != nil {
		return false, err
	}
	if err := os.Rename(s.Path, filepath.Join(grave, "stream")); err != nil {
		return false, err
	}
	w.at("buried")
	return true, os.RemoveAll(grave)
}
