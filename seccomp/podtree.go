// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// libseccomp keeps the rules with conditions for one call as a tree of tests on 32-bit words. Rules whose tests
// start alike share them; the tests beside each other stand in an order of their own (the later argument and the
// larger value first), and the first path that leads to an action decides. So the order of the rules in a profile
// does not matter, but which of two overlapping rules with different actions wins follows from that tree, and a rule
// may be refused, or be dropped, because of one before it. callTree keeps the same tree.
//
// Not kept is what depends on how libseccomp shares memory: a condition that more than one test can decide (ne, lt,
// le, gt, ge on 64 bits) and that others follow has its continuation shared between the ways to it. A second rule
// that starts with an equal test would change all of them at once. Such pairs are refused.
type callTree struct {
	wide  bool
	whole *outcome // a rule without conditions decides; it wins over all others, the first such over later ones
	top   level
	rules []treeRule // those with conditions
}

type treeRule struct {
	args []Cond
	act  podAction
}

// outcome is an action, and the leaf that stands for it and its rule.
type outcome struct {
	act  podAction
	leaf ref
}

// level is a list of tests, tried one after another.
type level struct{ tests []*treeTest }

type treeTest struct {
	arg    uint8
	high   bool
	op     uint8 // testEqual, testGreater, testGreaterEqual
	masked bool  // masked_eq: for libseccomp another operator than eq, even with all bits
	order  uint8 // of the rule's operator
	down   bool  // smaller values first
	k      uint32
	mask   uint32
	full   uint64 // the rule's value
	shared bool   // see callTree
	t, f   branch
}

// branch is an action, or more tests, or neither: then the next test of the level is tried.
type branch struct {
	out  *outcome
	more *level
}

var (
	errTreeConflict = errors.New("another rule for the same call has another action, and libseccomp refuses both")
	errTreeShared   = errors.New("it and another rule for the same call start with an equal comparison and go on after it: " +
		"what libseccomp makes of that cannot be carried; use conditions with SCMP_CMP_EQ or SCMP_CMP_MASKED_EQ")
	errTreeLarge = fmt.Errorf("more than %d conditional rules for one call", maxPodChain)
)

// add adds a rule, as libseccomp does.
func (t *callTree) add(args []Cond, out outcome) error {
	args = slices.Clone(args)
	sort.Slice(args, func(i, j int) bool { return args[i].Index < args[j].Index })
	args = slices.DeleteFunc(args, func(c Cond) bool { // no condition at all
		return c.Op == OpMaskedEqual && (c.Mask == 0 || !t.wide && uint32(c.Mask) == 0)
	})
	if t.whole != nil {
		return nil
	}
	if len(args) == 0 {
		t.whole, t.top = &out, level{}
		return nil
	}
	again := slices.ContainsFunc(t.rules, func(r treeRule) bool { return r.act == out.act && slices.Equal(r.args, args) })
	test := t.chain(args, &out)
	if again && test.anyShared() {
		return nil
	}
	if len(t.rules) == maxPodChain {
		return errTreeLarge
	}
	t.rules = append(t.rules, treeRule{args, out.act})
	if t.top.covers(test, out.act, false, false).covered() {
		return nil
	}
	return t.top.add(test)
}

// match is what libseccomp's search for a shorter rule has found: equal tests; where a way of the tree ends with them;
// all after some tests of the longer rule were passed over.
type match struct{ equal, ended, passed bool }

func (m match) covered() bool { return m.equal && m.ended && m.passed }

// covers says whether libseccomp takes the rule that starts with test n for covered by a shorter one in the tree,
// which has the last of its conditions. It compares tests rather than ways, so it can be wrong (for it, a1 == 3
// covers a0 == 1 with a1 != 3); what it drops, is dropped here too. passed: some tests of the rule were passed over;
// within: equal ones lead here, so that the next must be equal too.
func (l *level) covers(n *treeTest, act podAction, passed, within bool) match {
	m := match{passed: passed}
	tried := false
	for _, x := range l.tests {
		switch {
		case x.same(n):
			m.equal = true
			m.ended = m.ended || x.leaf()
			if x.t.some() && !n.t.some() || x.f.some() && !n.f.some() {
				return m
			}
			if x.leaf() && n.leaf() && !(x.t.equal(n.t) && x.f.equal(n.f)) {
				return m
			}
			for _, side := range [2][2]branch{{x.t, n.t}, {x.f, n.f}} {
				if side[0].more == nil || side[1].more == nil {
					continue
				}
				if below := side[0].more.covers(side[1].more.tests[0], act, passed, true); below.equal {
					m.ended = m.ended || below.ended
				}
			}
			if passed && m.ended && x.t.only(act) && x.f.only(act) {
				return m
			}
		case x.after(n):
			if passed {
				return m
			}
		case within:
			return m
		case !tried:
			tried = true // it is the same for every x
			for _, b := range [2]branch{n.t, n.f} {
				if b.more == nil {
					continue
				}
				if below := l.covers(b.more.tests[0], act, true, false); below.equal {
					below.ended = below.ended || m.ended
					return below
				}
			}
		}
	}
	return match{}
}

// chain builds the tests of one rule, from the last condition to the first.
func (t *callTree) chain(args []Cond, out *outcome) *treeTest {
	cont := branch{out: out}
	var first *treeTest
	for i, c := range slices.Backward(args) {
		if t.wide {
			shared := i < len(args)-1 && c.Op != OpEqual && c.Op != OpMaskedEqual
			first = chain64(c, cont, shared)
		} else {
			first = chain32(c, cont)
		}
		cont = branch{more: &level{[]*treeTest{first}}}
	}
	return first
}

func newTest(c Cond) treeTest {
	n := treeTest{arg: c.Index, mask: ^uint32(0), full: c.Value, order: 3}
	switch c.Op {
	case OpLess, OpLessEqual:
		n.order, n.down = 2, true
	case OpGreater, OpGreaterEqual:
		n.order = 1
	}
	return n
}

// chain32 makes the test of a 32-bit ABI: the lower half only, of the value too.
func chain32(c Cond, cont branch) *treeTest {
	n := newTest(c)
	n.k = uint32(c.Value)
	switch c.Op {
	case OpMaskedEqual:
		n.mask, n.masked = uint32(c.Mask), true
		n.k &= n.mask
	case OpGreater, OpLessEqual:
		n.op = testGreater
	case OpGreaterEqual, OpLess:
		n.op = testGreaterEqual
	}
	switch c.Op {
	case OpNotEqual, OpLess, OpLessEqual:
		n.f = cont
	default:
		n.t = cont
	}
	return &n
}

func chain64(c Cond, cont branch, shared bool) *treeTest {
	low, high := newTest(c), newTest(c)
	low.k, high.k = uint32(c.Value), uint32(c.Value>>32)
	high.high = true
	low.shared, high.shared = shared, shared
	if c.Op == OpMaskedEqual {
		low.masked, high.masked = true, true
		low.mask, high.mask = uint32(c.Mask), uint32(c.Mask>>32)
	}
	then := func(n *treeTest) branch { return branch{more: &level{[]*treeTest{n}}} }
	switch c.Op {
	case OpEqual, OpMaskedEqual:
		low.t, high.t = cont, then(&low)
		return &high
	case OpNotEqual:
		low.f, high.f, high.t = cont, cont, then(&low)
		return &high
	}
	above := high
	above.op = testGreater
	above.f = then(&high)
	high.t = then(&low)
	low.op = testGreaterEqual
	if c.Op == OpGreater || c.Op == OpLessEqual {
		low.op = testGreater
	}
	if c.Op == OpGreater || c.Op == OpGreaterEqual {
		above.t, low.t = cont, cont
	} else {
		high.f, low.f = cont, cont
	}
	return &above
}

func (n *treeTest) anyShared() bool {
	if n.shared {
		return true
	}
	for _, b := range []branch{n.t, n.f} {
		if b.more != nil && slices.ContainsFunc(b.more.tests, (*treeTest).anyShared) {
			return true
		}
	}
	return false
}

func (n *treeTest) same(o *treeTest) bool {
	return n.arg == o.arg && n.high == o.high && n.op == o.op && n.masked == o.masked && n.k == o.k && n.mask == o.mask
}

// after says that n stands behind o on their level: it is tried later.
func (n *treeTest) after(o *treeTest) bool {
	word := func(n *treeTest) uint8 {
		if n.high {
			return n.arg*2 + 1
		}
		return n.arg * 2
	}
	switch {
	case word(n) != word(o):
		return word(n) < word(o)
	case n.order != o.order:
		return n.order < o.order
	case n.down:
		return n.k > o.k
	}
	return n.k < o.k
}

func (l *level) add(n *treeTest) error {
	for i, x := range l.tests {
		if x.same(n) {
			return x.merge(n)
		}
		if x.after(n) {
			l.tests = slices.Insert(l.tests, i, n)
			return nil
		}
	}
	l.tests = append(l.tests, n)
	return nil
}

// merge adds what follows the equal test n of another rule.
func (n *treeTest) merge(o *treeTest) error {
	if n.shared || o.shared {
		return errTreeShared
	}
	leaf := n.leaf() || o.leaf()
	if o.t.out != nil {
		switch {
		case n.t.out == nil:
			if !n.t.only(o.t.out.act) {
				return errTreeConflict
			}
			n.t = o.t
			leaf = n.leaf() || o.leaf()
		case n.t.out.act != o.t.out.act:
			if o.high && o.full > n.full {
				n.t.out = o.t.out
			}
			if leaf {
				return errTreeConflict
			}
		}
	}
	if o.f.out != nil {
		switch {
		case n.f.out == nil:
			if !n.f.only(o.f.out.act) {
				return errTreeConflict
			}
			n.f = o.f
		case n.f.out.act != o.f.out.act && leaf:
			return errTreeConflict
		}
	}
	for _, side := range []struct{ mine, other *branch }{{&n.t, &o.t}, {&n.f, &o.f}} {
		switch {
		case side.other.more == nil:
		case side.mine.more != nil:
			if err := side.mine.more.add(side.other.more.tests[0]); err != nil {
				return err
			}
		case side.mine.out == nil:
			side.mine.more = side.other.more
		default:
			return nil // a shorter rule is there, which covers this one
		}
	}
	return nil
}

func (n *treeTest) leaf() bool { return n.t.more == nil && n.f.more == nil }

func (b branch) some() bool { return b.out != nil || b.more != nil }

func (b branch) equal(o branch) bool {
	return (b.out == nil) == (o.out == nil) && (b.out == nil || b.out.act == o.out.act)
}

// only says that nothing below b has another action.
func (b branch) only(act podAction) bool {
	if b.out != nil && b.out.act != act {
		return false
	}
	return b.more == nil || !slices.ContainsFunc(b.more.tests, func(n *treeTest) bool { return !n.t.only(act) || !n.f.only(act) })
}

// graph returns the tree as tests, with def where no rule matches.
func (t *callTree) graph(g *graph, def ref) ref {
	if t.whole != nil {
		return t.whole.leaf
	}
	return t.top.graph(g, def)
}

func (l *level) graph(g *graph, next ref) ref {
	for _, n := range slices.Backward(l.tests) {
		follow := func(b branch) ref {
			switch {
			case b.out != nil:
				return b.out.leaf
			case b.more != nil:
				return b.more.graph(g, next)
			}
			return next
		}
		out := node{op: n.op, word: n.arg * 2, k: n.k, mask: n.mask}
		if n.high {
			out.word++
		}
		out.t, out.f = follow(n.t), follow(n.f)
		next = g.test(out)
	}
	return next
}
