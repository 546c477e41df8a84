// SPDX-License-Identifier: Apache-2.0

package seccomp

import "errors"

// libseccomp leaves out the load of a word that the test before has loaded already. Of the ways to a test it
// considers only the one by which it first meets it when it puts the program together; comes another way with
// another word loaded, the test compares that one. (So in 2.5.4 and 2.6.0; it takes ordering comparisons of one
// argument with values that differ in the upper half, or before further conditions.) A profile that is so compiled
// means nothing that one could state, and is refused. blockSet finds out.
type blockSet struct {
	blocks []block
	known  map[block]blockID
	state  []blockState
}

// block is a test as libseccomp writes it: one piece of code for all equal ones, in whichever tree.
type block struct {
	word, op   uint8
	masked     bool
	k, mask    uint32
	t, f       blockID
	start, end loadedWord
}

// blockID is an index of blocks, or, negative, an action.
type blockID int32

// loadedWord is what stands in the accumulator: a word of the arguments, and the bits left of it.
type loadedWord struct {
	word int8 // -1: not an argument, or whatever it may be
	mask uint32
}

var noWord = loadedWord{word: -1}

type blockState struct {
	otherWord bool // some way leads to it with another word loaded
	trusted   bool // in some tree it was first met with its word loaded, so it does not load it
}

var errTreeLoads = errors.New("libseccomp's program for it would compare the wrong half of an argument (it reuses a load that " +
	"not all ways to it have made), which cannot be carried; use SCMP_CMP_EQ or SCMP_CMP_MASKED_EQ instead of ordering comparisons")

// add takes a call's tree into account; the error is about all trees so far.
func (s *blockSet) add(t *callTree) error {
	if t.whole != nil {
		return nil
	}
	const fallThrough = -1
	first := s.level(&t.top, fallThrough, noWord)
	met := map[blockID]bool{first: true}
	return s.visit(first, met)
}

// visit follows the ways from a block in libseccomp's order: those from a true test first.
func (s *blockSet) visit(from blockID, met map[blockID]bool) error {
	b := s.blocks[from]
	for _, to := range [2]blockID{b.t, b.f} {
		if to < 0 {
			continue
		}
		st := &s.state[to]
		if want := s.blocks[to].start; want != noWord {
			if b.end != want {
				st.otherWord = true
			} else if !met[to] {
				st.trusted = true
			}
			if st.otherWord && st.trusted {
				return errTreeLoads
			}
		}
		if !met[to] {
			met[to] = true
			if err := s.visit(to, met); err != nil {
				return err
			}
		}
	}
	return nil
}

// level returns the first block of a level; next is where its last one falls through to.
func (s *blockSet) level(l *level, next blockID, acc loadedWord) blockID {
	made := make([]block, len(l.tests))
	for i, n := range l.tests {
		b := &made[i]
		*b = block{word: n.arg * 2, op: n.op, masked: n.masked, k: n.k, mask: n.mask, start: acc}
		if n.high {
			b.word++
		}
		if acc.word != int8(b.word) || b.mask&acc.mask != b.mask {
			b.start, acc = noWord, loadedWord{int8(b.word), ^uint32(0)}
		}
		acc.mask = b.mask
		b.end = acc
	}
	for i := len(made) - 1; i >= 0; i-- {
		b, n := made[i], l.tests[i]
		b.t, b.f = s.branch(n.t, next, b.end), s.branch(n.f, next, b.end)
		id, ok := s.known[b]
		if !ok {
			id = blockID(len(s.blocks))
			s.known[b] = id
			s.blocks, s.state = append(s.blocks, b), append(s.state, blockState{})
		}
		next = id
	}
	return next
}

func (s *blockSet) branch(b branch, next blockID, acc loadedWord) blockID {
	switch {
	case b.out != nil: // distinct per action, and below what falls through
		return -2 - blockID(b.out.act.rank)<<16 - blockID(b.out.act.errno)
	case b.more != nil:
		return s.level(b.more, next, acc)
	}
	return next
}
