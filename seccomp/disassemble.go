// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"strings"
)

// Disassemble returns a filter as text, one instruction a line: labels where something jumps to, the names of calls,
// architectures and arguments beside the numbers. It reads what Filter returns, for people; its form may change.
func Disassemble(filter []Instruction) string {
	flow := follow(filter)
	var b strings.Builder
	for i, in := range filter {
		label := ""
		if flow[i].target {
			label = fmt.Sprintf("L%d:", i)
		}
		text, comment := in.describe(i, flow[i])
		if comment != "" {
			comment = "; " + comment
		}
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%-7s%-40s%s", label, text, comment), " "))
	}
	return b.String()
}

var mnemonics = map[uint16]string{codeJEQ: "jeq", codeJGT: "jgt", codeJGE: "jge", codeJSet: "jset"}

func (in Instruction) describe(i int, at place) (text, comment string) {
	switch in.Code {
	case codeLoad:
		return "ld   " + dataName(int(in.K)), ""
	case codeAnd:
		return fmt.Sprintf("and  %#x", in.K), ""
	case codeRet:
		return "ret  " + returnName(in.K), ""
	case codeJump:
		return fmt.Sprintf("ja   L%d", i+1+int(in.K)), ""
	}
	name, ok := mnemonics[in.Code]
	if !ok {
		return fmt.Sprintf("code %#x jt %d jf %d k %#x", in.Code, in.JT, in.JF, in.K), ""
	}
	switch at.loaded {
	case offArch:
		comment = Arch(in.K).Name()
	case offNr:
		comment, _ = SyscallName(at.arch, int(in.K))
		if in.K == x32Bit && at.arch == ArchAMD64 {
			comment = "x32 calls from here"
		}
	}
	return fmt.Sprintf("%-5s%#x, L%d, L%d", name, in.K, i+1+int(in.JT), i+1+int(in.JF)), comment
}

// place is what is known where an instruction runs.
type place struct {
	target bool // something jumps here
	known  bool // something leads here
	loaded int  // the offset of what is in the accumulator, -1 for nothing
	arch   Arch // the architecture, if it was compared
}

// follow finds what is known at each instruction, from the first way that leads there. All ways lead forward.
func follow(filter []Instruction) []place {
	at := make([]place, len(filter))
	lead := func(to int, from place, jump bool) {
		if to >= len(at) {
			return
		}
		if !at[to].known {
			from.known, from.target = true, false
			at[to] = from
		}
		at[to].target = at[to].target || jump
	}
	lead(0, place{loaded: -1}, false)
	for i, in := range filter {
		here := at[i]
		switch in.Code {
		case codeRet:
		case codeJump:
			lead(i+1+int(in.K), here, true)
		case codeJEQ, codeJGT, codeJGE, codeJSet:
			yes := here
			if in.Code == codeJEQ && here.loaded == offArch {
				yes.arch = Arch(in.K)
			}
			lead(i+1+int(in.JT), yes, true)
			lead(i+1+int(in.JF), here, true)
		case codeLoad:
			here.loaded = int(in.K)
			lead(i+1, here, false)
		default:
			lead(i+1, here, false)
		}
	}
	return at
}

func dataName(off int) string {
	switch {
	case off == offNr:
		return "nr"
	case off == offArch:
		return "arch"
	case off >= offArgs && off < 64 && off%8 == 0:
		return fmt.Sprintf("args[%d].low", (off-offArgs)/8)
	case off >= offArgs && off < 64 && off%8 == 4:
		return fmt.Sprintf("args[%d].high", (off-offArgs)/8)
	}
	return fmt.Sprintf("[%d]", off)
}

func returnName(k uint32) string {
	switch k {
	case retAllow:
		return "ALLOW"
	case retLog:
		return "LOG"
	case retUserNotif:
		return "NOTIFY"
	case retTrap:
		return "TRAP"
	case retKillThread:
		return "KILL_THREAD"
	case retKillProcess:
		return "KILL_PROCESS"
	}
	return fmt.Sprintf("%#x", k)
}
