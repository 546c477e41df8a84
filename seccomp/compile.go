// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
)

// Compile turns a policy into a program. Its errors say what part of the policy cannot be carried out and why: a
// rule that is wrong, a pod's profile that runc would refuse too or that cannot be in force under ours, a filter
// that would be longer than the kernel takes.
func Compile(p Policy) (*Program, error) {
	if p.Native.family() == nil {
		return nil, fmt.Errorf("seccomp: no tables for the architecture %s: x86-64 and arm64 are supported", p.Native.Name())
	}
	b := &builder{policy: &p, graph: newGraph(), leafIndex: map[leaf]ref{}, textIndex: map[string]uint16{}}
	b.text("")
	if err := b.checkLayers(); err != nil {
		return nil, err
	}
	prog, err := b.build()
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return prog, nil
}

// builder holds what a compilation collects.
type builder struct {
	policy    *Policy
	graph     *graph
	leaves    []leaf
	leafIndex map[leaf]ref
	texts     []string
	textIndex map[string]uint16
	tooMany   bool // texts ran out of indexes
}

func (b *builder) leaf(l leaf) ref {
	if r, ok := b.leafIndex[l]; ok {
		return r
	}
	r := leafBit | ref(len(b.leaves))
	b.leaves = append(b.leaves, l)
	b.leafIndex[l] = r
	return r
}

func (b *builder) text(s string) uint16 {
	if i, ok := b.textIndex[s]; ok {
		return i
	}
	if len(b.texts) >= 1<<16-1 {
		b.tooMany = true
		return 0
	}
	i := uint16(len(b.texts))
	b.texts = append(b.texts, s)
	b.textIndex[s] = i
	return i
}

func (b *builder) build() (*Program, error) {
	p := b.policy
	prog := &Program{native: p.Native, flags: FilterFlagSpecAllow}
	pod, err := parsePod(p)
	if err != nil {
		return nil, fmt.Errorf("the pod's profile: %w", err)
	}
	if pod != nil {
		prog.pod, prog.flags = true, pod.flags
		prog.origins = append(prog.origins, b.text(OriginPod))
	}
	for i := range p.Layers {
		prog.origins = append(prog.origins, b.text(p.Layers[i].Name))
	}
	if err := b.checkOtherArches(pod); err != nil {
		return nil, fmt.Errorf("the pod's profile: %w", err)
	}
	rows := &rowIndex{prog: prog, known: map[string]uint16{}}
	for _, abi := range p.Native.family() {
		cols, err := b.columns(abi, pod)
		if err != nil {
			return nil, err
		}
		if abi == ArchX32 {
			amd64 := &prog.spaces[0]
			rows.lay(amd64, cols, x32Bit, ^uint32(0))
			continue
		}
		prog.spaces = append(prog.spaces, space{arch: abi})
		rows.lay(&prog.spaces[len(prog.spaces)-1], cols, 0, 0)
	}
	prog.other = rows.row(b.otherRow(pod))
	if b.graph.full || b.tooMany || rows.full {
		return nil, errTooLarge
	}
	prog.texts, prog.leaves = b.texts, b.leaves
	prog.nodes = reachable(b.graph.nodes, prog.rows)
	if prog.filter, err = prog.assemble(); err != nil {
		return nil, err
	}
	return prog, nil
}

// reachable returns the nodes that the roots lead to, in their order, and rewrites the roots.
func reachable(nodes []node, roots []ref) []node {
	used := make([]bool, len(nodes))
	mark := func(r ref) {
		if !r.isLeaf() {
			used[r] = true
		}
	}
	for _, r := range roots {
		mark(r)
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		if used[i] {
			mark(nodes[i].t)
			mark(nodes[i].f)
		}
	}
	moved := make([]ref, len(nodes))
	to := func(r ref) ref {
		if r.isLeaf() {
			return r
		}
		return moved[r]
	}
	var kept []node
	for i, n := range nodes {
		if used[i] {
			n.t, n.f = to(n.t), to(n.f)
			moved[i] = ref(len(kept))
			kept = append(kept, n)
		}
	}
	for i := range roots {
		roots[i] = to(roots[i])
	}
	return kept
}

// columns returns the columns of one ABI: the pod's, the layers', the audit's.
func (b *builder) columns(abi Arch, pod *podProfile) ([]column, error) {
	var cols []column
	if pod != nil {
		c, err := b.podColumn(abi, pod)
		if err != nil {
			return nil, fmt.Errorf("the pod's profile: %w", err)
		}
		cols = append(cols, c)
	}
	for i := range b.policy.Layers {
		cols = append(cols, b.layerColumn(abi, &b.policy.Layers[i]))
	}
	if b.policy.empty() {
		return append(cols, column{[]uint32{0}, []ref{b.leaf(leaf{rank: rankAllow})}}), nil
	}
	return append(cols, b.auditColumn(abi)), nil
}

// otherRow decides about architectures that the native kernel does not have, so about nothing; but not by allowing.
func (b *builder) otherRow(pod *podProfile) []ref {
	var row []ref
	if pod != nil {
		row = append(row, b.leaf(leaf{rank: rankKillThread, rule: b.text(RuleBadArch)}))
	}
	for range b.policy.Layers {
		row = append(row, b.leaf(leaf{rank: rankDeny, errno: enosys, rule: b.text(RuleForeignABI)}))
	}
	return append(row, b.leaf(leaf{rank: rankAllow}))
}

func (p *Policy) empty() bool { return len(p.Layers) == 0 && len(p.Audit) == 0 && !podConfines(p.Pod) }

// rowIndex keeps equal rows once.
type rowIndex struct {
	prog  *Program
	known map[string]uint16
	key   []byte
	full  bool
}

func (x *rowIndex) row(roots []ref) uint16 {
	x.key = x.key[:0]
	for _, r := range roots {
		x.key = append(x.key, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	if i, ok := x.known[string(x.key)]; ok {
		return i
	}
	n := len(x.known)
	if n >= 1<<16-1 {
		x.full = true
		return 0
	}
	x.known[string(x.key)] = uint16(n)
	x.prog.rows = append(x.prog.rows, roots...)
	return uint16(n)
}

// lay puts the columns of one ABI into a space, from the number start on, and for end > 0 only below end: what the
// space had at end stays.
func (x *rowIndex) lay(s *space, cols []column, start, end uint32) {
	var after uint16
	if end > 0 {
		after = s.rows[len(s.rows)-1]
		keep, _ := slices.BinarySearch(s.starts, start)
		s.starts, s.rows = s.starts[:keep], s.rows[:keep]
	}
	pos := make([]int, len(cols))
	roots := make([]ref, len(cols))
	for nr := uint64(start); ; {
		next := uint64(1) << 32
		for i, c := range cols {
			for pos[i]+1 < len(c.starts) && uint64(c.starts[pos[i]+1]) <= nr {
				pos[i]++
			}
			if pos[i]+1 < len(c.starts) {
				next = min(next, uint64(c.starts[pos[i]+1]))
			}
			roots[i] = c.roots[pos[i]]
		}
		s.put(uint32(nr), x.row(roots))
		if nr = next; nr >= 1<<32 || end > 0 && nr >= uint64(end) {
			break
		}
	}
	if end > 0 {
		s.put(end, after)
	}
}

func (s *space) put(start uint32, row uint16) {
	if n := len(s.rows); n == 0 || s.rows[n-1] != row {
		s.starts, s.rows = append(s.starts, start), append(s.rows, row)
	}
}
