// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// Instruction is struct sock_filter of <linux/filter.h>.
type Instruction struct {
	Code   uint16
	JT, JF uint8
	K      uint32
}

// The flags that FilterFlags can return, of seccomp(2).
const (
	FilterFlagLog       uint32 = 1 << 1 // SECCOMP_FILTER_FLAG_LOG
	FilterFlagSpecAllow uint32 = 1 << 2 // SECCOMP_FILTER_FLAG_SPEC_ALLOW
)

// The ranks of outcomes, in the order of their strictness.
const (
	rankAllow uint8 = iota
	rankLog
	rankAudit
	rankDeny
	rankErrno
	rankTrap
	rankKillThread
	rankKill
	rankKillProcess
	ranks
)

// leaf is the outcome of one column. rule and class are indexes of texts.
type leaf struct {
	rank   uint8
	silent bool
	errno  uint16
	rule   uint16
	class  uint16
}

// space holds the decisions about the numbers that the kernel reports for one architecture: those from starts[i] up
// to starts[i+1] are decided by rows[i].
type space struct {
	arch   Arch
	starts []uint32
	rows   []uint16
}

// Program is a compiled policy. It is immutable and safe for concurrent use.
type Program struct {
	native  Arch
	flags   uint32
	pod     bool     // the first column is the pod's profile
	origins []uint16 // of the columns but the last, which is the audit's: the pod, if any, then the layers
	texts   []string
	leaves  []leaf
	nodes   []node
	rows    []ref // rows of len(origins)+1 roots
	spaces  []space
	other   uint16 // the row of architectures that no space is for
	filter  []Instruction
}

// Filter returns the classic BPF program for seccomp(2): at most 4096 instructions. It is the caller's to keep.
func (p *Program) Filter() []Instruction { return slices.Clone(p.filter) }

// FilterFlags returns the flags that the pod's profile asks for; without one SPEC_ALLOW, as runc has it for one that
// says nothing. The caller adds what it needs (NEW_LISTENER); TSYNC is never among them.
func (p *Program) FilterFlags() uint32 { return p.flags }

// Native returns the architecture that the program is for.
func (p *Program) Native() Arch { return p.native }

// Digest returns the SHA-256 of the filter, in hexadecimal, as the little-endian array of struct sock_filter.
func (p *Program) Digest() string {
	buf := make([]byte, 0, 8*len(p.filter))
	for _, in := range p.filter {
		buf = binary.LittleEndian.AppendUint16(buf, in.Code)
		buf = append(buf, in.JT, in.JF)
		buf = binary.LittleEndian.AppendUint32(buf, in.K)
	}
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:])
}

// row returns the roots that decide about d, one a column.
func (p *Program) row(arch Arch, nr uint32) []ref {
	width := len(p.origins) + 1
	row := int(p.other)
	for i := range p.spaces {
		s := &p.spaces[i]
		if s.arch != arch {
			continue
		}
		lo, hi := 0, len(s.starts) // starts[lo] <= nr < starts[hi]
		for hi-lo > 1 {
			if mid := int(uint(lo+hi) >> 1); s.starts[mid] <= nr {
				lo = mid
			} else {
				hi = mid
			}
		}
		row = int(s.rows[lo])
		break
	}
	return p.rows[row*width : (row+1)*width]
}

// Decide says what a call means. It is total: it has an answer for every call, also for those that the filter
// allows or the kernel kills. It does not allocate.
func (p *Program) Decide(d *Data) Decision {
	row := p.row(d.Arch, uint32(d.Nr))
	var best *leaf
	origin := 0
	for i := range p.origins {
		l := &p.leaves[walk(p.nodes, row[i], d)]
		if best == nil || l.rank > best.rank {
			best, origin = l, i
		}
	}
	seen := &p.leaves[walk(p.nodes, row[len(p.origins)], d)]
	var dec Decision
	if seen.rank == rankAudit {
		dec = Decision{Action: ActionAudit, RuleID: p.texts[seen.rule], Class: p.texts[seen.class], Silent: seen.silent}
	}
	if best == nil || best.rank < rankDeny {
		return dec
	}
	dec.Silent = false
	dec.RuleID = p.texts[best.rule]
	dec.Origin = p.texts[p.origins[origin]]
	dec.Action, dec.Errno = ActionKill, 0
	if best.rank == rankDeny || best.rank == rankErrno {
		dec.Action, dec.Errno = ActionDeny, best.errno
	}
	return dec
}
