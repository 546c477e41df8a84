// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/tree"
)

// Bounds of a lane.
const (
	maxLaneCells = 64
	maxChanges   = 8 // of program, as many as tree keeps programs
)

// deeds are sorts of calls, as bits.
type deeds uint8

const (
	ran deeds = 1 << iota
	files
	network
	privilege
	others
	refused // denied or killed
)

// deedOf is the sort of a class. What a class of a newer version is, is not known.
func deedOf(class string) deeds {
	switch class {
	case "exec", "fork":
		return ran
	case "file-write", "file-delete", "file-attr", "file-read":
		return files
	case "net":
		return network
	case "privilege", "process", "namespace", "mount", "keyring", "module", "bpf", "io-uring", "system":
		return privilege
	}
	return others
}

// lane is what a process did, in time.
type lane struct {
	from, to int64
	did      strip[deeds]
	calls    uint64
	refused  uint64
	changes  []change // of program
	ended    bool     // at to, as a record says
}

// change is the first call of a process that runs a program.
type change struct {
	at      int64
	program string
}

func newLane(at int64) *lane {
	return &lane{from: at, to: at, did: strip[deeds]{most: maxLaneCells, merge: func(into *deeds, cell deeds) { *into |= cell }}}
}

// call takes in a call of the process.
func (l *lane) call(at int64, c *audit.Syscall, p *tree.Process) {
	l.seen(at)
	n := max(1, c.Count)
	l.calls += n
	did := deedOf(c.Class)
	if c.Verdict != audit.VerdictAllowed {
		l.refused += n
		did = refused
		if c.Count > 1 && !c.Until.IsZero() {
			until := nanos(c.Until)
			l.seen(until)
			*l.did.at(until) |= did
		}
	}
	*l.did.at(at) |= did
	if n := len(p.Programs); n > 0 && len(l.changes) < maxChanges {
		if last := p.Programs[n-1]; len(l.changes) == 0 || l.changes[len(l.changes)-1].program != last {
			l.changes = append(l.changes, change{at, last})
		}
	}
}

// seen has the lane reach to a time.
func (l *lane) seen(at int64) { l.from, l.to = min(l.from, at), max(l.to, at) }

// bands returns the pieces of time in which the process did what bit says, as pairs of begin and end.
func (l *lane) bands(bit deeds) (pieces [][2]int64) {
	for i, cell := range l.did.cells {
		if cell&bit == 0 {
			continue
		}
		begin := l.did.start + int64(i)*l.did.width
		if n := len(pieces); n > 0 && pieces[n-1][1] == begin {
			pieces[n-1][1] += l.did.width
			continue
		}
		pieces = append(pieces, [2]int64{begin, begin + l.did.width})
	}
	return pieces
}

// chosen returns the n processes of a tree that are shown: those that were denied most, then those that made most calls, in the order in which
// they were seen first.
func chosen(all []*tree.Process, lanes map[*tree.Process]*lane, n int) []*tree.Process {
	if len(all) <= n {
		return all
	}
	weight := func(p *tree.Process) (first bool, refused, calls uint64) {
		if l := lanes[p]; l != nil {
			refused, calls = l.refused, l.calls
		}
		return p.First || p.Session != nil, refused, calls
	}
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *tree.Process) int {
		aFirst, aRefused, aCalls := weight(a)
		bFirst, bRefused, bCalls := weight(b)
		switch {
		case aFirst != bFirst:
			return less(aFirst)
		case (aRefused > 0) != (bRefused > 0):
			return less(aRefused > 0)
		case aRefused != bRefused:
			return less(aRefused > bRefused)
		case aCalls != bCalls:
			return less(aCalls > bCalls)
		}
		return 0
	})
	take := map[*tree.Process]bool{}
	for _, p := range order[:n] {
		take[p] = true
	}
	shown := make([]*tree.Process, 0, n)
	for _, p := range all {
		if take[p] {
			shown = append(shown, p)
		}
	}
	return shown
}

func less(is bool) int {
	if is {
		return -1
	}
	return 1
}
