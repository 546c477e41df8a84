// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
)

// maxInstructions is BPF_MAXINSNS of <linux/bpf_common.h>.
const maxInstructions = 4096

// What the filter returns, of <linux/seccomp.h>.
const (
	retKillProcess uint32 = 0x80000000
	retKillThread  uint32 = 0x00000000
	retTrap        uint32 = 0x00030000
	retUserNotif   uint32 = 0x7fc00000
	retLog         uint32 = 0x7ffc0000
	retAllow       uint32 = 0x7fff0000
)

// Instruction codes of <linux/bpf_common.h>.
const (
	codeLoad = 0x20 // BPF_LD|BPF_W|BPF_ABS
	codeAnd  = 0x54 // BPF_ALU|BPF_AND|BPF_K
	codeJump = 0x05 // BPF_JMP|BPF_JA
	codeJEQ  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	codeJGT  = 0x25
	codeJGE  = 0x35
	codeJSet = 0x45
	codeRet  = 0x06 // BPF_RET|BPF_K
)

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// kernelGraph is the decision graph that the filter needs: of each decision only what the kernel must return.
type kernelGraph struct {
	*graph
	p     *Program
	rets  []uint32
	memos map[memoKey]map[ref]ref
}

// memoKey names what the leaves of a column are replaced by: what is at least so strict by a notification, the rest
// by end; or, for the pod's column, what the columns of rest (their roots) make of it.
type memoKey struct {
	least uint8
	end   ref
	rest  string
}

func (k *kernelGraph) memo(key memoKey) map[ref]ref {
	m := k.memos[key]
	if m == nil {
		m = map[ref]ref{}
		k.memos[key] = m
	}
	return m
}

func (k *kernelGraph) ret(v uint32) ref {
	i := slices.Index(k.rets, v)
	if i < 0 {
		i = len(k.rets)
		k.rets = append(k.rets, v)
	}
	return leafBit | ref(i)
}

// notifyFrom returns a column's tests that lead to a notification for outcomes of that rank or stricter, else to end.
func (k *kernelGraph) notifyFrom(least uint8, root, end ref) ref {
	notify := k.ret(retUserNotif)
	return k.mapLeaves(root, k.memo(memoKey{least: least, end: end}), k.p.nodes, func(l int) ref {
		if k.p.leaves[l].rank >= least {
			return notify
		}
		return end
	})
}

// row builds one row's tests, one column after another: each leads on to the next where its answer leaves it open.
func (k *kernelGraph) row(roots []ref) ref {
	layers, audit := roots[:len(roots)-1], roots[len(roots)-1]
	if k.p.pod {
		layers = layers[1:]
	}
	// chain asks the layers what remains to be asked if the pod's profile says end
	chain := func(end ref, least uint8) ref {
		for _, root := range slices.Backward(layers) {
			end = k.notifyFrom(least, root, end)
		}
		return end
	}
	seen := func(ret uint32) ref { return chain(k.notifyFrom(rankAudit, audit, k.ret(ret)), rankDeny) }
	if !k.p.pod {
		return seen(retAllow)
	}
	var key []byte
	for _, r := range roots[1:] {
		key = append(key, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	var done [ranks]ref
	var have [ranks]bool
	return k.mapLeaves(roots[0], k.memo(memoKey{rest: string(key)}), k.p.nodes, func(l int) ref {
		rank := k.p.leaves[l].rank
		if !have[rank] {
			have[rank] = true
			switch rank {
			case rankKillProcess:
				done[rank] = k.ret(retKillProcess)
			case rankKillThread:
				done[rank] = chain(k.ret(retKillThread), rankKill)
			case rankTrap:
				done[rank] = chain(k.ret(retTrap), rankKill)
			case rankErrno:
				done[rank] = k.ret(retUserNotif)
			case rankLog:
				done[rank] = seen(retLog)
			default:
				done[rank] = seen(retAllow)
			}
		}
		return done[rank]
	})
}

// assemble builds the filter: the architecture, then a balanced tree over the numbers, then the tests. What returns
// the same whatever the arguments is reached by loads of the number and the architecture only: such a call the
// kernel (seccomp_is_const_allow in kernel/seccomp.c) keeps in a bitmap and does not run the filter for.
func (p *Program) assemble() ([]Instruction, error) {
	k := &kernelGraph{graph: newGraph(), p: p, memos: map[memoKey]map[ref]ref{}}
	width := len(p.origins) + 1
	roots := make([]ref, len(p.rows)/width)
	for i := range roots {
		roots[i] = k.row(p.rows[i*width : (i+1)*width])
	}
	if k.full {
		return nil, errTooLarge
	}
	e := &emitter{k: k, at: map[label]int{}}
	next := e.target(roots[p.other])
	for i := len(p.spaces) - 1; i >= 0; i-- {
		tree := e.tree(k.segments(&p.spaces[i], roots))
		if tree == next && tree.kind == labelReturn {
			continue // all the same, and no need to ask for the architecture
		}
		if tree.kind == labelTree {
			tree = e.load(tree, offNr)
		}
		jt, jf := e.near2(tree, next)
		e.push(Instruction{Code: codeJEQ, JT: jt, JF: jf, K: uint32(p.spaces[i].arch)})
		next = e.mark(labelTree)
	}
	if next.kind == labelTree {
		next = e.load(next, offArch)
	}
	e.fall(next)
	if len(e.code) > maxInstructions {
		return nil, fmt.Errorf("the filter would have %d instructions, the kernel takes %d: "+
			"use fewer rules with argument conditions, or permit fewer architectures", len(e.code), maxInstructions)
	}
	slices.Reverse(e.code)
	return e.code, nil
}

type segment struct {
	start uint32
	root  ref
}

// segments returns a space's decisions as the kernel needs them, equal neighbours merged.
func (k *kernelGraph) segments(s *space, roots []ref) []segment {
	var segs []segment
	for i, start := range s.starts {
		if r := roots[s.rows[i]]; len(segs) == 0 || segs[len(segs)-1].root != r {
			segs = append(segs, segment{start, r})
		}
	}
	return segs
}

// emitter writes the program from its end to its start, so that whatever an instruction jumps to is there already.
// Positions count from the end; slices.Reverse puts them right, for the offsets are relative.
type emitter struct {
	k    *kernelGraph
	code []Instruction
	at   map[label]int // the nearest position of each label
	next int
}

// label is a place to jump to: a return, a test, or a place in a tree.
type label struct {
	kind labelKind
	id   int
}

type labelKind uint8

const (
	labelReturn labelKind = iota
	labelTest
	labelTree
)

func (e *emitter) push(in Instruction) { e.code = append(e.code, in) }

// mark names the position of the instruction just written.
func (e *emitter) mark(kind labelKind) label {
	e.next++
	l := label{kind, e.next}
	e.at[l] = len(e.code) - 1
	return l
}

// target writes what a ref leads to, if it is not there yet.
func (e *emitter) target(r ref) label {
	if r.isLeaf() {
		return label{labelReturn, r.index()}
	}
	l := label{labelTest, r.index()}
	if _, ok := e.at[l]; ok {
		return l
	}
	n := e.k.nodes[r.index()]
	t, f := e.target(n.t), e.target(n.f)
	jt, jf := e.near2(t, f)
	in := Instruction{Code: codeJEQ, JT: jt, JF: jf, K: n.k}
	switch n.op {
	case testGreater:
		in.Code = codeJGT
	case testGreaterEqual:
		in.Code = codeJGE
	case testAnyBit:
		in.Code = codeJSet
	}
	e.push(in)
	if n.op == testEqual && n.mask != ^uint32(0) {
		e.push(Instruction{Code: codeAnd, K: n.mask})
	}
	e.push(Instruction{Code: codeLoad, K: offArgs + 4*uint32(n.word)})
	e.at[l] = len(e.code) - 1
	return l
}

// reach is how far back a target may be: an offset has 8 bits, and two may be made near one after the other.
const reach = 253

// near makes a label reachable from the next instruction: by a return of its own, or a jump.
func (e *emitter) near(l label) {
	pos, ok := e.at[l]
	distance := len(e.code) - 1 - pos
	if ok && distance <= reach {
		return
	}
	if l.kind == labelReturn {
		e.push(Instruction{Code: codeRet, K: e.k.rets[l.id]})
	} else {
		e.push(Instruction{Code: codeJump, K: uint32(distance)})
	}
	e.at[l] = len(e.code) - 1
}

// fall makes the next instruction written go on at a label.
func (e *emitter) fall(l label) {
	if pos, ok := e.at[l]; ok && pos == len(e.code)-1 {
		return
	}
	if l.kind == labelReturn {
		e.push(Instruction{Code: codeRet, K: e.k.rets[l.id]})
	} else {
		e.push(Instruction{Code: codeJump, K: uint32(len(e.code) - 1 - e.at[l])})
	}
}

// load writes the load that a label's tests need before them.
func (e *emitter) load(l label, offset uint32) label {
	e.fall(l)
	e.push(Instruction{Code: codeLoad, K: offset})
	return e.mark(labelTree)
}

// near2 makes two labels reachable and returns the offsets for the next instruction.
func (e *emitter) near2(t, f label) (jt, jf uint8) {
	e.near(t)
	e.near(f)
	offset := func(l label) uint8 { return uint8(len(e.code) - 1 - e.at[l]) }
	return offset(t), offset(f)
}

// tree writes a balanced search over the segments; the number is in the accumulator.
func (e *emitter) tree(segs []segment) label {
	switch len(segs) {
	case 1:
		return e.target(segs[0].root)
	case 3:
		if mid := segs[1]; segs[0].root == segs[2].root && segs[2].start == mid.start+1 {
			f, t := e.target(segs[0].root), e.target(mid.root)
			jt, jf := e.near2(t, f)
			e.push(Instruction{Code: codeJEQ, JT: jt, JF: jf, K: mid.start})
			return e.mark(labelTree)
		}
	}
	mid := len(segs) / 2
	above, below := e.tree(segs[mid:]), e.tree(segs[:mid])
	jt, jf := e.near2(above, below)
	e.push(Instruction{Code: codeJGE, JT: jt, JF: jf, K: segs[mid].start})
	return e.mark(labelTree)
}
