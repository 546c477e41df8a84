// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The binary form of a program is its tables; the filter follows from them. It is for the same version of Metsuke
// on both sides, not for keeping.
const (
	marshalMagic = "MSKP\x01"
	maxMarshaled = 1 << 20
)

var errMalformed = errors.New("malformed")

// MarshalBinary returns a compact form of the program for UnmarshalProgram.
func (p *Program) MarshalBinary() ([]byte, error) {
	w := writer(marshalMagic)
	w.number(uint64(p.native))
	w.number(uint64(p.flags))
	w.bool(p.pod)
	w.number(uint64(len(p.texts)))
	for _, s := range p.texts {
		w.number(uint64(len(s)))
		w = append(w, s...)
	}
	w.number(uint64(len(p.origins)))
	for _, o := range p.origins {
		w.number(uint64(o))
	}
	w.number(uint64(len(p.leaves)))
	for _, l := range p.leaves {
		w = append(w, l.rank)
		w.bool(l.silent)
		w.number(uint64(l.errno))
		w.number(uint64(l.rule))
		w.number(uint64(l.class))
	}
	w.number(uint64(len(p.nodes)))
	for _, n := range p.nodes {
		w = append(w, n.op, n.word)
		w.number(uint64(n.k))
		if n.op == testEqual {
			w.number(uint64(n.mask))
		}
		w.ref(n.t)
		w.ref(n.f)
	}
	w.number(uint64(len(p.rows) / (len(p.origins) + 1)))
	for _, r := range p.rows {
		w.ref(r)
	}
	for _, s := range p.spaces {
		w.number(uint64(len(s.starts)))
		var last uint32
		for i, start := range s.starts {
			w.number(uint64(start - last))
			w.number(uint64(s.rows[i]))
			last = start
		}
	}
	w.number(uint64(p.other))
	if len(w) > maxMarshaled {
		return nil, fmt.Errorf("seccomp: the program has %d bytes, at most %d are allowed", len(w), maxMarshaled)
	}
	return w, nil
}

// UnmarshalProgram reads what MarshalBinary wrote. It refuses everything else, and anything after it.
func UnmarshalProgram(data []byte) (*Program, error) {
	p, err := unmarshal(data)
	if err != nil {
		return nil, fmt.Errorf("seccomp: program: %w", err)
	}
	return p, nil
}

func unmarshal(data []byte) (*Program, error) {
	if len(data) > maxMarshaled {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxMarshaled)
	}
	rest, ok := bytes.CutPrefix(data, []byte(marshalMagic))
	if !ok {
		return nil, errors.New("not one, or of another version")
	}
	r := &reader{rest: rest}
	p := &Program{native: Arch(r.number(1 << 32)), flags: uint32(r.number(1 << 32)), pod: r.number(2) == 1}
	family := p.native.family()
	if r.bad || family == nil || p.flags&^(FilterFlagLog|FilterFlagSpecAllow) != 0 {
		return nil, errMalformed
	}
	p.texts = make([]string, r.count())
	for i := range p.texts {
		p.texts[i] = r.text()
	}
	p.origins = make([]uint16, r.count())
	for i := range p.origins {
		p.origins[i] = uint16(r.number(uint64(len(p.texts))))
	}
	p.leaves = make([]leaf, r.count())
	for i := range p.leaves {
		p.leaves[i] = leaf{rank: uint8(r.number(uint64(ranks))), silent: r.number(2) == 1, errno: uint16(r.number(maxErrno + 1)),
			rule: uint16(r.number(uint64(len(p.texts)))), class: uint16(r.number(uint64(len(p.texts))))}
	}
	p.nodes = make([]node, r.count())
	for i := range p.nodes {
		n := &p.nodes[i]
		n.op, n.word, n.k = uint8(r.number(uint64(testOps))), uint8(r.number(12)), uint32(r.number(1<<32))
		if n.op == testEqual {
			n.mask = uint32(r.number(1 << 32))
		}
		n.t, n.f = r.ref(i, len(p.leaves)), r.ref(i, len(p.leaves))
	}
	width := len(p.origins) + 1
	rows := r.count()
	if r.bad || rows == 0 || rows >= 1<<16 || rows*width > maxMarshaled || p.pod && width < 2 {
		return nil, errMalformed
	}
	p.rows = make([]ref, rows*width)
	for i := range p.rows {
		p.rows[i] = r.ref(len(p.nodes), len(p.leaves))
	}
	for _, abi := range family {
		if abi != ArchX32 {
			p.spaces = append(p.spaces, r.space(abi, rows))
		}
	}
	p.other = uint16(r.number(uint64(rows)))
	if r.bad || len(r.rest) > 0 || !p.consistent() {
		return nil, errMalformed
	}
	var err error
	p.filter, err = p.assemble()
	return p, err
}

// consistent says that each column only leads to outcomes of its kind. (That the walk ends is so by the refs.)
func (p *Program) consistent() bool {
	leads := make([]uint16, len(p.nodes)) // the ranks that a node leads to, as bits
	to := func(r ref) uint16 {
		if r.isLeaf() {
			return 1 << p.leaves[r.index()].rank
		}
		return leads[r]
	}
	for i, n := range p.nodes {
		leads[i] = to(n.t) | to(n.f)
	}
	const (
		pod   = 1<<rankAllow | 1<<rankLog | 1<<rankErrno | 1<<rankTrap | 1<<rankKillThread | 1<<rankKillProcess
		layer = 1<<rankAllow | 1<<rankDeny | 1<<rankKill
		audit = 1<<rankAllow | 1<<rankAudit
	)
	width := len(p.origins) + 1
	for i, r := range p.rows {
		kind := uint16(layer)
		switch column := i % width; {
		case column == width-1:
			kind = audit
		case column == 0 && p.pod:
			kind = pod
		}
		if to(r)&^kind != 0 {
			return false
		}
	}
	return true
}

type writer []byte

func (w *writer) number(v uint64) { *w = binary.AppendUvarint(*w, v) }

func (w *writer) bool(v bool) {
	if v {
		*w = append(*w, 1)
	} else {
		*w = append(*w, 0)
	}
}

// ref writes a leaf as an odd number, a node as an even one.
func (w *writer) ref(r ref) {
	n := uint64(r.index()) << 1
	if r.isLeaf() {
		n |= 1
	}
	w.number(n)
}

// reader reads numbers that were written in their shortest form; bad says that it could not.
type reader struct {
	rest []byte
	bad  bool
}

// number reads a number below limit.
func (r *reader) number(limit uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v >= limit || n > 1 && v>>(7*(n-1)) == 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads how many things follow, each of at least one byte.
func (r *reader) count() int { return int(r.number(min(uint64(len(r.rest))+1, 1<<16))) }

func (r *reader) text() string {
	n := r.number(maxText + 1)
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// ref reads a ref to one of the leaves or one of the first nodes.
func (r *reader) ref(nodes, leaves int) ref {
	v := r.number(1 << 32)
	at, limit, bit := int(v>>1), nodes, ref(0)
	if v&1 == 1 {
		limit, bit = leaves, leafBit
	}
	if at >= limit {
		r.bad, r.rest = true, nil
		return leafBit
	}
	return ref(at) | bit
}

func (r *reader) space(arch Arch, rows int) space {
	s := space{arch: arch}
	n := r.count()
	last := uint64(0)
	for i := range n {
		step := r.number(1 << 32)
		last += step
		if i == 0 != (step == 0) || last >= 1<<32 {
			r.bad = true
			return s
		}
		s.starts = append(s.starts, uint32(last))
		s.rows = append(s.rows, uint16(r.number(uint64(rows))))
		if r.bad {
			return s
		}
	}
	r.bad = r.bad || n == 0
	return s
}
