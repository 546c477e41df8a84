// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"strings"
)

// Disassemble returns a filter as text, one instruction a line: labels where something jumps to, the names of calls,
// architectures and arguments beside the numbers. It reads what Filter returns, for people; its form may change.
func Disassemble(filter []Instruction) string {
	targets := map[int]bool{}
	for i, in := range filter {
		switch in.Code {
		case codeJump:
			targets[i+1+int(in.K)] = true
		case codeJEQ, codeJGT, codeJGE, codeJSet:
			targets[i+1+int(in.JT)] = in.JT > 0 || targets[i+1+int(in.JT)]
			targets[i+1+int(in.JF)] = in.JF > 0 || targets[i+1+int(in.JF)]
		}
	}
	arches := archAt(filter)
	var b strings.Builder
	for i, in := range filter {
		label := ""
		if targets[i] {
			label = fmt.Sprintf("L%d:", i)
		}
		text, comment := in.describe(i, loaded(filter, i), arches[i])
		if comment != "" {
			comment = "; " + comment
		}
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%-7s%-40s%s", label, text, comment), " "))
	}
	return b.String()
}

var mnemonics = map[uint16]string{codeJEQ: "jeq", codeJGT: "jgt", codeJGE: "jge", codeJSet: "jset"}

func (in Instruction) describe(i, load int, abi Arch) (text, comment string) {
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
	switch load {
	case offArch:
		comment = Arch(in.K).Name()
	case offNr:
		comment, _ = SyscallName(abi, int(in.K))
		if in.K == x32Bit && abi == ArchAMD64 {
			comment = "x32 calls from here"
		}
	}
	return fmt.Sprintf("%-5s%#x, L%d, L%d", name, in.K, i+1+int(in.JT), i+1+int(in.JF)), comment
}

// loaded returns the offset of the load that the instruction's accumulator comes from, in the order of the text,
// which for our filters is the order of control, or -1.
func loaded(filter []Instruction, i int) int {
	if code := filter[i].Code; code == codeRet || code == codeJump {
		return -1
	}
	for ; i >= 0; i-- {
		if filter[i].Code == codeLoad {
			return int(filter[i].K)
		}
	}
	return -1
}

// archAt returns for each instruction the architecture that is known when it runs: its text stands, up to the next
// load of the number, for the one whose comparison jumps to that load.
func archAt(filter []Instruction) []Arch {
	known := make([]Arch, len(filter))
	for i, in := range filter {
		if in.Code == codeJEQ && loaded(filter, i) == offArch {
			if to := i + 1 + int(in.JT); to < len(filter) {
				for filter[to].Code == codeJump && to+1+int(filter[to].K) < len(filter) {
					to += 1 + int(filter[to].K)
				}
				known[to] = Arch(in.K)
			}
		}
	}
	for i := range known {
		if known[i] == 0 && i > 0 {
			known[i] = known[i-1]
		}
	}
	return known
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
