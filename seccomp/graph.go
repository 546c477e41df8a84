// SPDX-License-Identifier: Apache-2.0

package seccomp

import "errors"

// A decision is a walk through an acyclic graph of tests on 32-bit words, as BPF can make them, that ends at a
// leaf. Nodes are only ever made after the nodes they lead to, so a node's targets have smaller indexes than its
// own: that is what makes the walk end, and what a decoder checks. Equal nodes are one (hash consing), which keeps
// the graph linear in the rules.
type ref uint32

// leafBit marks a ref to a leaf.
const leafBit ref = 1 << 31

func (r ref) isLeaf() bool { return r&leafBit != 0 }
func (r ref) index() int   { return int(r &^ leafBit) }

// The tests. testEqual is on the word masked, the others on the whole word.
const (
	testEqual uint8 = iota // word & mask == k
	testGreater
	testGreaterEqual
	testAnyBit // word & k != 0
	testOps
)

type node struct {
	k, mask uint32
	t, f    ref
	word    uint8 // argument*2, +1 for the upper half
	op      uint8
}

// maxNodes bounds the graph; a filter of 4096 instructions cannot hold as many tests.
const maxNodes = 1 << 16

var errTooLarge = errors.New("the policy needs more tests than a filter can hold: use fewer rules with argument conditions")

type graph struct {
	nodes []node
	known map[node]ref
	full  bool // maxNodes reached: what test returned since is wrong
}

func newGraph() *graph { return &graph{known: map[node]ref{}} }

// test returns a node, or something simpler that decides the same.
func (g *graph) test(n node) ref {
	if n.t == n.f {
		return n.t
	}
	switch n.op {
	case testEqual:
		switch {
		case n.k&^n.mask != 0:
			return n.f
		case n.mask == 0:
			return n.t
		case n.mask != ^uint32(0) && n.k == 0:
			return g.test(node{op: testAnyBit, word: n.word, k: n.mask, t: n.f, f: n.t})
		case n.k == n.mask && n.mask&(n.mask-1) == 0:
			return g.test(node{op: testAnyBit, word: n.word, k: n.mask, t: n.t, f: n.f})
		}
	case testGreater:
		if n.k == ^uint32(0) {
			return n.f
		}
	case testGreaterEqual:
		if n.k == 0 {
			return n.t
		}
	case testAnyBit:
		// any of these bits, else any of those: one test
		if !n.f.isLeaf() {
			if next := g.nodes[n.f.index()]; next.op == testAnyBit && next.word == n.word && next.t == n.t {
				n.k, n.f = n.k|next.k, next.f
			}
		}
	}
	if n.op != testEqual {
		n.mask = 0
	}
	if r, ok := g.known[n]; ok {
		return r
	}
	if len(g.nodes) >= maxNodes {
		g.full = true
		return n.f
	}
	r := ref(len(g.nodes))
	g.nodes = append(g.nodes, n)
	g.known[n] = r
	return r
}

// cond returns the test of one condition. wide: all 64 bits of the register count; else the lower half is a 32-bit
// integer and the upper one is ignored.
func (g *graph) cond(c Cond, wide bool, t, f ref) ref {
	switch c.Op {
	case OpNotEqual:
		return g.cond(Cond{Index: c.Index, Op: OpEqual, Value: c.Value}, wide, f, t)
	case OpLess:
		return g.cond(Cond{Index: c.Index, Op: OpGreaterEqual, Value: c.Value}, wide, f, t)
	case OpLessEqual:
		return g.cond(Cond{Index: c.Index, Op: OpGreater, Value: c.Value}, wide, f, t)
	}
	low := node{word: c.Index * 2, k: uint32(c.Value), mask: ^uint32(0), t: t, f: f}
	high := node{word: c.Index*2 + 1, k: uint32(c.Value >> 32), mask: ^uint32(0), f: f}
	switch c.Op {
	case OpEqual, OpMaskedEqual:
		low.op, high.op = testEqual, testEqual
		if c.Op == OpMaskedEqual {
			low.mask, high.mask = uint32(c.Mask), uint32(c.Mask>>32)
		}
		if !wide {
			return g.test(low)
		}
		high.t = g.test(low)
		return g.test(high)
	case OpGreater:
		low.op = testGreater
	case OpGreaterEqual:
		low.op = testGreaterEqual
	}
	if !wide {
		return g.test(low)
	}
	// above: true; the same: the lower half decides; below: false
	high.op, high.t = testEqual, g.test(low)
	equal := g.test(high)
	return g.test(node{op: testGreater, word: high.word, k: high.k, t: t, f: equal})
}

// mapLeaves returns the graph below r with each leaf replaced by what f gives for it. memo holds what was done, for
// one f.
func (g *graph) mapLeaves(r ref, memo map[ref]ref, from []node, f func(leaf int) ref) ref {
	if r.isLeaf() {
		return f(r.index())
	}
	if m, ok := memo[r]; ok {
		return m
	}
	n := from[r.index()]
	n.t, n.f = g.mapLeaves(n.t, memo, from, f), g.mapLeaves(n.f, memo, from, f)
	m := g.test(n)
	memo[r] = m
	return m
}

// walk returns the leaf that d ends at.
func walk(nodes []node, r ref, d *Data) int {
	for !r.isLeaf() {
		n := &nodes[r]
		word := uint32(d.Args[n.word>>1] >> (32 * (n.word & 1)))
		var yes bool
		switch n.op {
		case testEqual:
			yes = word&n.mask == n.k
		case testGreater:
			yes = word > n.k
		case testGreaterEqual:
			yes = word >= n.k
		default:
			yes = word&n.k != 0
		}
		if yes {
			r = n.t
		} else {
			r = n.f
		}
	}
	return r.index()
}
