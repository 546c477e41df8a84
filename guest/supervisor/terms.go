// SPDX-License-Identifier: Apache-2.0

package supervisor

import "strconv"

// term is one name: of a set of bits, of one value of a field within the bits (mask), or of one choice.
type term struct {
	bits uint64
	name string
	mask uint64 // 0: the bits themselves
}

// terms are the names of a register's values.
type terms struct {
	names  []term // a name that includes another's bits comes before it
	choice bool   // one name is the whole value; else names are bits that add up
	zero   string // of no bits at all; empty: "0"
	signed bool   // an unknown choice is a signed number
	long   bool   // the kernel looks at all 64 bits of the register, not at the low half
}

// append shows a value: names joined by "|", what has no name in hex.
func (t *terms) append(dst []byte, value uint64) []byte {
	if t.choice {
		for i := range t.names {
			if t.names[i].bits == value {
				return append(dst, t.names[i].name...)
			}
		}
		if t.signed {
			return strconv.AppendInt(dst, int64(int32(value)), 10)
		}
		return appendHex(dst, value)
	}
	start := len(dst)
	for i := range t.names {
		n := &t.names[i]
		mask := n.mask
		if mask == 0 {
			mask = n.bits
		}
		if value&mask != n.bits {
			continue
		}
		if len(dst) > start {
			dst = append(dst, '|')
		}
		dst = append(dst, n.name...)
		value &^= mask
	}
	switch {
	case value != 0 && len(dst) > start:
		return appendHex(append(dst, '|'), value)
	case value != 0:
		return appendHex(dst, value)
	case len(dst) > start:
		return dst
	case t.zero != "":
		return append(dst, t.zero...)
	}
	return append(dst, '0')
}
