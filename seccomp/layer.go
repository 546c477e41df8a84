// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"sort"
)

// A column is one of the parts that decide (the pod's profile, a layer, the audit), for one ABI: the numbers from
// starts[i] up to starts[i+1] are decided by roots[i].
type column struct {
	starts []uint32
	roots  []ref
}

// point is a number that is decided by itself.
type point struct {
	nr   uint32
	root ref
}

// makeColumn lays points over a base (which starts at 0).
func makeColumn(base column, points []point) column {
	sort.Slice(points, func(i, j int) bool { return points[i].nr < points[j].nr })
	var c column
	put := func(start uint32, root ref) {
		if n := len(c.roots); n > 0 && c.starts[n-1] == start {
			c.roots[n-1] = root
			if n > 1 && c.roots[n-2] == root {
				c.starts, c.roots = c.starts[:n-1], c.roots[:n-1]
			}
		} else if n == 0 || c.roots[n-1] != root {
			c.starts, c.roots = append(c.starts, start), append(c.roots, root)
		}
	}
	b := 0
	for _, p := range points {
		for b < len(base.starts) && base.starts[b] <= p.nr {
			put(base.starts[b], base.roots[b])
			b++
		}
		put(p.nr, p.root)
		if after := p.nr + 1; after != 0 && (b == len(base.starts) || base.starts[b] > after) {
			put(after, base.roots[b-1])
		}
	}
	for ; b < len(base.starts); b++ {
		put(base.starts[b], base.roots[b])
	}
	return c
}

// ruleset collects, call by call, the rules of one column in the order in which they are tried.
type ruleset struct {
	g   *graph
	abi Arch
	// chains holds for each number the tests in the order of their rules; the first that matches decides.
	chains map[uint32][]link
}

type link struct {
	args []Cond
	name int // in the name list, for the width of its arguments
	leaf ref
}

// add appends a rule for each call it names that the ABI has. strict: the rule forbids or reports, so where an ABI
// hides the arguments (socketcall, ipc) it must match more rather than less.
func (s *ruleset) add(names []string, args []Cond, leaf ref, strict bool) {
	for _, name := range names {
		i, args := nameIndex(name), args
		if s.abi == Arch386 && name == "mmap" && len(args) > 0 { // old_mmap: its arguments are behind a pointer
			if args = nil; !strict {
				continue
			}
		}
		if nr := numberAt(s.abi, i); nr >= 0 {
			s.chains[uint32(nr)] = append(s.chains[uint32(nr)], link{args, i, leaf})
		}
		if s.abi != Arch386 {
			continue
		}
		if via, sub, ok := multiplexed(name); ok && (strict || len(args) == 0) {
			nr, _ := SyscallNumber(Arch386, via)
			// the low 16 bits of ipc's call number are the call, the upper ones a version
			only := []Cond{{Index: 0, Op: OpMaskedEqual, Value: uint64(sub), Mask: 0xffff}}
			if via == "socketcall" {
				only = []Cond{{Index: 0, Op: OpEqual, Value: uint64(sub)}}
			}
			s.chains[uint32(nr)] = append(s.chains[uint32(nr)], link{only, nameIndex(via), leaf})
		}
	}
}

// points builds the tests of each number, over what decides if no rule matches.
func (s *ruleset) points(otherwise func(nr uint32) ref) []point {
	points := make([]point, 0, len(s.chains))
	for nr, chain := range s.chains {
		root := otherwise(nr)
		for _, l := range slices.Backward(chain) {
			root = s.g.rule(s.abi, l, root)
		}
		points = append(points, point{nr, root})
	}
	return points
}

// rule returns the tests of one rule: its leaf if all conditions hold, else next.
func (g *graph) rule(abi Arch, l link, next ref) ref {
	root := l.leaf
	for _, c := range slices.Backward(l.args) {
		wide := !reads32(abi, l.name, c.Index)
		if !wide {
			var always, never bool
			if c, always, never = c.narrowed(); never {
				return next
			} else if always {
				continue
			}
		}
		root = g.cond(c, wide, root, next)
	}
	return root
}

// narrowed rewrites a condition for an argument of 32 bits, taken as an unsigned number. A negative one may be
// written in the rule as it stands in a 64-bit register, sign-extended.
func (c Cond) narrowed() (out Cond, always, never bool) {
	const low = 0xffffffff
	if c.Op == OpMaskedEqual {
		if high := c.Value >> 32; high != 0 && (high != c.Mask>>32 || c.Value&(1<<31) == 0) {
			return c, false, true
		}
		c.Value, c.Mask = c.Value&low, c.Mask&low
		return c, c.Mask == 0, false
	}
	if c.Value>>31 == 1<<33-1 {
		c.Value &= low
	}
	if c.Value <= low {
		return c, false, false
	}
	switch c.Op {
	case OpEqual, OpGreater, OpGreaterEqual:
		return c, false, true
	}
	return c, true, false
}

// firstUnknown returns the first number of the common range that the tables do not have.
func firstUnknown(abi Arch) uint32 {
	numbers, byNumber := abi.tables()
	for _, i := range slices.Backward(byNumber) {
		n := numbers[i]
		if n < armEncoded && (abi != ArchX32 || n < x32Legacy) {
			return uint32(n) + 1
		}
	}
	return 0
}

// x32Legacy is where the numbers 512 to 547 begin, which only x32 has.
const x32Legacy = 512

// layerColumn compiles a layer for one ABI; for ArchAMD64 the x32 numbers are left out.
func (b *builder) layerColumn(abi Arch, l *Layer) column {
	native := b.policy.Native
	if abi != native && !slices.Contains(l.Architectures, abi) {
		return column{[]uint32{0}, []ref{b.leaf(leaf{rank: rankDeny, errno: enosys, rule: b.text(RuleForeignABI)})}}
	}
	base := b.leaf(leaf{rank: rankAllow})
	unknown := base
	if l.Default == ActionDeny {
		base = b.leaf(leaf{rank: rankDeny, errno: orEPERM(l.DefaultErrno), rule: b.text(RuleDefault)})
		unknown = b.leaf(leaf{rank: rankDeny, errno: enosys, rule: b.text(RuleDefault)})
	}
	s := ruleset{b.graph, abi, map[uint32][]link{}}
	for _, r := range l.Kill {
		s.add(r.Syscalls, r.Args, b.leaf(leaf{rank: rankKill, rule: b.text(r.ID)}), true)
	}
	for _, r := range l.Allow {
		s.add(r.Syscalls, r.Args, b.leaf(leaf{rank: rankAllow}), false)
	}
	for _, r := range l.Deny {
		s.add(r.Syscalls, r.Args, b.leaf(leaf{rank: rankDeny, errno: orEPERM(r.Errno), rule: b.text(r.ID)}), true)
	}
	first := firstUnknown(abi)
	start := uint32(0)
	if abi == ArchX32 {
		start, first = x32Bit, first|x32Bit
	}
	EachSyscall(abi, func(nr int, _ string) bool { // those that stand apart, above the common range
		if _, ok := s.chains[uint32(nr)]; !ok && uint32(nr) >= first {
			s.chains[uint32(nr)] = nil
		}
		return true
	})
	return makeColumn(column{[]uint32{start, first}, []ref{base, unknown}}, s.points(func(uint32) ref { return base }))
}

// auditColumn compiles the audit rules, and after them those for our own bookkeeping.
func (b *builder) auditColumn(abi Arch) column {
	none := b.leaf(leaf{rank: rankAllow})
	s := ruleset{b.graph, abi, map[uint32][]link{}}
	for _, r := range b.policy.Audit {
		s.add(r.Syscalls, r.Args, b.leaf(leaf{rank: rankAudit, rule: b.text(r.ID), class: b.text(r.Class)}), true)
	}
	for _, r := range Tracking() {
		s.add(r.Syscalls, r.Args, b.leaf(leaf{rank: rankAudit, silent: true}), true)
	}
	start := uint32(0)
	if abi == ArchX32 {
		start = x32Bit
	}
	return makeColumn(column{[]uint32{start}, []ref{none}}, s.points(func(uint32) ref { return none }))
}

func orEPERM(errno uint16) uint16 {
	if errno == 0 {
		return eperm
	}
	return errno
}

func (b *builder) checkLayers() error {
	if len(b.policy.Layers) > maxLayers {
		return fmt.Errorf("%d layers: at most %d", len(b.policy.Layers), maxLayers)
	}
	for i := range b.policy.Layers {
		l := &b.policy.Layers[i]
		if err := l.validate(); err != nil {
			return fmt.Errorf("seccomp: layer %q: %w", l.Name, err)
		}
	}
	if len(b.policy.Audit) > maxRules {
		return fmt.Errorf("seccomp: %d audit rules: at most %d", len(b.policy.Audit), maxRules)
	}
	for i, r := range b.policy.Audit {
		if err := r.Validate(); err != nil {
			return fmt.Errorf("seccomp: audit[%d] (%s): %w", i, r.ID, err)
		}
	}
	return nil
}

func (l *Layer) validate() error {
	switch {
	case l.Name == "" || l.Name == OriginPod || len(l.Name) > maxText:
		return fmt.Errorf("a layer needs a name of at most %d bytes that is not %q", maxText, OriginPod)
	case l.Default != ActionAllow && l.Default != ActionDeny:
		return fmt.Errorf("default: allow or deny, not %s", l.Default)
	case l.DefaultErrno > maxErrno:
		return fmt.Errorf("default errno %d: the largest is %d", l.DefaultErrno, maxErrno)
	}
	for _, a := range l.Architectures {
		if _, err := ParseArch(a.Name()); err != nil {
			return fmt.Errorf("architectures: %w", err)
		}
	}
	for _, list := range []struct {
		name  string
		rules []Rule
	}{{"kill", l.Kill}, {"deny", l.Deny}, {"allow", l.Allow}} {
		if len(list.rules) > maxRules {
			return fmt.Errorf("%s: %d rules: at most %d", list.name, len(list.rules), maxRules)
		}
		for i, r := range list.rules {
			if err := r.Validate(); err != nil {
				return fmt.Errorf("%s[%d] (%s): %w", list.name, i, r.ID, err)
			}
		}
	}
	return nil
}
