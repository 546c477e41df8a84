// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
)

// maxPodChain bounds the conditional rules for one call: each takes two instructions, or more.
const maxPodChain = 2048

// podColumn compiles the pod's profile for one ABI; for ArchAMD64 without the x32 numbers, but with number -1.
func (b *builder) podColumn(abi Arch, pod *podProfile) (column, error) {
	def := b.podLeaf(pod.def, RuleDefault)
	bad := b.leaf(leaf{rank: rankKillThread, rule: b.text(RuleBadArch)})
	newer := b.leaf(leaf{rank: rankErrno, errno: enosys, rule: b.text(RuleNewer)})
	listed := abi == b.policy.Native || slices.Contains(pod.arches, abi)
	x32 := slices.Contains(pod.arches, ArchX32)

	// runc's stub comes before the filter and takes the largest number that each ABI has of the profile's names
	last, lastX32 := int64(0), int64(0)
	if pod.stub && listed {
		last = pod.largest(abi)
	}
	if pod.stub && x32 {
		lastX32 = pod.largest(ArchX32)
	}
	base := column{[]uint32{0}, []ref{def}}
	add := func(start uint32, r ref) { base.starts, base.roots = append(base.starts, start), append(base.roots, r) }
	switch {
	case abi == ArchX32:
		base.starts[0] = x32Bit
		lastNative := int64(0)
		if pod.stub {
			lastNative = pod.largest(ArchAMD64)
		}
		if !x32 {
			base.roots[0] = bad
		}
		if lastX32 > 0 {
			add(uint32(lastX32)+1, newer)
		}
		// without bit 30 again: for the stub native numbers, for libseccomp still x32 ones
		switch {
		case lastNative > 0:
			add(1<<31, newer)
		case x32:
			add(1<<31, def)
		}
		switch {
		case lastX32 > 0:
			add(1<<31|x32Bit, newer)
		case x32:
			add(1<<31|x32Bit, def)
		default:
			add(1<<31|x32Bit, bad)
		}
	case !listed:
		base.roots[0] = bad
	default:
		if last > 0 {
			add(uint32(last)+1, newer)
		}
		if abi == ArchAMD64 { // -1: neither native nor x32 for libseccomp, x32 for runc
			if lastX32 > 0 {
				add(^uint32(0), newer)
			} else {
				add(^uint32(0), def)
			}
		}
	}
	if !listed {
		return base, nil
	}
	points, err := b.podPoints(abi, pod, def)
	if err != nil {
		return column{}, err
	}
	limit := last
	if abi == ArchX32 {
		limit = lastX32
	}
	points = slices.DeleteFunc(points, func(p point) bool { return limit > 0 && int64(p.nr) > limit })
	return makeColumn(base, points), nil
}

func (b *builder) podLeaf(a podAction, rule string) ref {
	l := leaf{rank: a.rank, errno: a.errno}
	if a.rank > rankLog {
		l.rule = b.text(rule)
	}
	return b.leaf(l)
}

// largest is runc's findLastSyscalls: the largest number of the profile's names on an ABI; 0 for none. What
// 32-bit x86 also multiplexes has for libseccomp no number there.
func (pod *podProfile) largest(abi Arch) int64 {
	var top int64
	for _, r := range pod.rules {
		if abi == Arch386 {
			if _, _, mux := multiplexed(nameAt(r.name)); mux {
				continue
			}
		}
		top = max(top, int64(numberAt(abi, r.name)))
	}
	return top
}

// podPoints builds each call's tests from the rules in libseccomp's order.
func (b *builder) podPoints(abi Arch, pod *podProfile, def ref) ([]point, error) {
	trees := map[int]*callTree{}
	wide := abi == ArchAMD64 || abi == ArchARM64
	put := func(nr int, r *podRule, args []Cond) error {
		t := trees[nr]
		if t == nil {
			t = &callTree{wide: wide}
			trees[nr] = t
		}
		err := t.add(args, outcome{r.act, b.podLeaf(r.act, fmt.Sprintf("syscalls[%d]", r.entry))})
		if err != nil {
			return fmt.Errorf("syscalls[%d]: %s on %s: %w", r.entry, nameAt(r.name), abi.Name(), err)
		}
		return nil
	}
	for i := range pod.rules {
		r := &pod.rules[i]
		if r.act == pod.def {
			continue // runc: redundant, and libseccomp would refuse it
		}
		nr := numberAt(abi, r.name)
		if nr < 0 {
			nr = -2 - r.name // libseccomp keeps and checks the rule, but emits nothing for it
		}
		if abi == Arch386 {
			if via, sub, ok := multiplexed(nameAt(r.name)); ok {
				// the call's number takes the place of the first argument's condition, the others stay
				args := append([]Cond{{Index: 0, Op: OpEqual, Value: uint64(sub)}},
					slices.DeleteFunc(slices.Clone(r.args), func(c Cond) bool { return c.Index == 0 })...)
				mux, _ := SyscallNumber(Arch386, via)
				if err := put(mux, r, args); err != nil {
					return nil, err
				}
			} else if nr < 0 {
				continue
			}
		}
		if err := put(nr, r, r.args); err != nil {
			return nil, err
		}
	}
	var points []point
	for nr, t := range trees {
		if nr >= 0 {
			if err := pod.blocks.add(t); err != nil {
				name, _ := SyscallName(abi, nr)
				return nil, fmt.Errorf("the rules for %s on %s: %w", name, abi.Name(), err)
			}
			points = append(points, point{uint32(nr), t.graph(b.graph, def)})
		}
	}
	return points, nil
}

// checkOtherArches finds the contradictions on architectures that are listed in vain; libseccomp refuses them too.
func (b *builder) checkOtherArches(pod *podProfile) error {
	if pod == nil {
		return nil
	}
	for _, abi := range pod.others {
		if _, err := b.podPoints(abi, pod, b.podLeaf(pod.def, RuleDefault)); err != nil {
			return err
		}
	}
	return nil
}
