// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This is what a policy means, written down once more: slowly, rule by rule, and without anything of the compiler
// but the tables of names and of argument widths.

// refDecide returns the decision about a call and what the filter must return for it.
func refDecide(p *Policy, d *Data) (Decision, uint32) {
	audit, seen := refAudit(p, d)
	podRank, podDec := refPod(p, d)
	var layer Decision
	for i := range p.Layers {
		if dec := refLayer(p, &p.Layers[i], d); dec.Action > layer.Action {
			layer = dec
		}
	}
	layer.Class, podDec.Class = audit.Class, audit.Class
	switch {
	case podRank == rankKillProcess:
		return podDec, retKillProcess
	case layer.Action == ActionKill:
		return layer, retUserNotif
	case podRank == rankKillThread:
		return podDec, retKillThread
	case podRank == rankTrap:
		return podDec, retTrap
	case podRank == rankErrno:
		return podDec, retUserNotif
	case layer.Action == ActionDeny:
		return layer, retUserNotif
	case seen:
		return audit, retUserNotif
	case podRank == rankLog:
		return Decision{}, retLog
	}
	return Decision{}, retAllow
}

// refABI returns the ABI of a call, if the native kernel has it.
func refABI(native Arch, d *Data) (Arch, bool) {
	abi := d.Arch
	if abi == ArchAMD64 && uint32(d.Nr) >= 0x40000000 && d.Nr != -1 {
		abi = ArchX32
	}
	switch native {
	case ArchAMD64:
		return abi, abi == ArchAMD64 || abi == ArchX32 || abi == Arch386
	default:
		return abi, abi == ArchARM64 || abi == ArchARM
	}
}

func refLayer(p *Policy, l *Layer, d *Data) Decision {
	abi, known := refABI(p.Native, d)
	if !known || abi != p.Native && !slices.Contains(l.Architectures, abi) {
		return Decision{Action: ActionDeny, Errno: 38, RuleID: "foreign-abi", Origin: l.Name}
	}
	for _, r := range l.Kill {
		if refMatches(r.Syscalls, r.Args, abi, d, true) {
			return Decision{Action: ActionKill, RuleID: r.ID, Origin: l.Name}
		}
	}
	for _, r := range l.Allow {
		if refMatches(r.Syscalls, r.Args, abi, d, false) {
			return Decision{}
		}
	}
	for _, r := range l.Deny {
		if refMatches(r.Syscalls, r.Args, abi, d, true) {
			return Decision{Action: ActionDeny, Errno: max(r.Errno, 1), RuleID: r.ID, Origin: l.Name}
		}
	}
	if l.Default == ActionDeny {
		dec := Decision{Action: ActionDeny, Errno: max(l.DefaultErrno, 1), RuleID: "default", Origin: l.Name}
		if _, named := SyscallName(d.Arch, int(d.Nr)); !named && uint32(d.Nr)&^refX32(abi) > 471 {
			dec.Errno = 38
		}
		return dec
	}
	return Decision{}
}

func refX32(abi Arch) uint32 {
	if abi == ArchX32 {
		return 0x40000000
	}
	return 0
}

func refAudit(p *Policy, d *Data) (Decision, bool) {
	if len(p.Layers) == 0 && len(p.Audit) == 0 && !podConfines(p.Pod) {
		return Decision{}, false
	}
	abi, known := refABI(p.Native, d)
	if !known {
		return Decision{}, false
	}
	for _, r := range p.Audit {
		if refMatches(r.Syscalls, r.Args, abi, d, true) {
			return Decision{Action: ActionAudit, RuleID: r.ID, Class: r.Class}, true
		}
	}
	for _, r := range Tracking() {
		if refMatches(r.Syscalls, r.Args, abi, d, true) {
			return Decision{Action: ActionAudit, Silent: true}, true
		}
	}
	return Decision{}, false
}

// refMatches says whether a rule matches a call. strict: it forbids or reports.
func refMatches(names []string, args []Cond, abi Arch, d *Data, strict bool) bool {
	name, ok := SyscallName(d.Arch, int(d.Nr))
	if !ok {
		return false
	}
	if abi == Arch386 {
		sub, list := uint32(0), []string(nil)
		switch name {
		case "socketcall":
			sub, list = uint32(d.Args[0]), socketCalls[:]
		case "ipc":
			sub, list = uint32(d.Args[0])&0xffff, ipcCalls[:]
		}
		if int(sub) < len(list) && list[sub] != "" && slices.Contains(names, list[sub]) && (strict || len(args) == 0) {
			return true
		}
		if name == "mmap" && len(args) > 0 {
			return slices.Contains(names, name) && strict
		}
	}
	if !slices.Contains(names, name) {
		return false
	}
	for _, c := range args {
		arg := d.Args[c.Index]
		if reads32(abi, nameIndex(name), c.Index) {
			arg &= 0xffffffff
			if high := c.Value >> 32; high != 0 && c.Value&(1<<31) != 0 {
				// a negative number, sign-extended
				if c.Op == OpMaskedEqual && c.Mask>>32 == high {
					c.Mask, c.Value = c.Mask&0xffffffff, c.Value&0xffffffff
				} else if c.Op != OpMaskedEqual && high == 0xffffffff {
					c.Value &= 0xffffffff
				}
			}
		}
		if !c.holds(arg) {
			return false
		}
	}
	return true
}

// refPod is the plain reading of a profile in which no two rules for a call have different actions: then it does not
// matter which of them matches. (What libseccomp makes of the others is compared with libseccomp itself.)
func refPod(p *Policy, d *Data) (uint8, Decision) {
	s := p.Pod
	if !podConfines(s) {
		return rankAllow, Decision{}
	}
	abi, known := refABI(p.Native, d)
	listed := known && (abi == p.Native || slices.Contains(s.Architectures, specs.Arch(abi.Name())))
	nr := uint32(d.Nr)
	outcome := func(a specs.LinuxSeccompAction, errno *uint, id string) (uint8, Decision) {
		e := uint16(1)
		if errno != nil {
			e = uint16(*errno)
		}
		switch a {
		case specs.ActAllow:
			return rankAllow, Decision{}
		case specs.ActLog:
			return rankLog, Decision{}
		case specs.ActErrno:
			return rankErrno, Decision{Action: ActionDeny, Errno: e, RuleID: id, Origin: "pod"}
		case specs.ActTrap:
			return rankTrap, Decision{Action: ActionKill, RuleID: id, Origin: "pod"}
		case specs.ActKillProcess:
			return rankKillProcess, Decision{Action: ActionKill, RuleID: id, Origin: "pod"}
		}
		return rankKillThread, Decision{Action: ActionKill, RuleID: id, Origin: "pod"}
	}
	if refNewer(p, abi, nr) {
		return rankErrno, Decision{Action: ActionDeny, Errno: 38, RuleID: "newer-than-profile", Origin: "pod"}
	}
	if !listed {
		return rankKillThread, Decision{Action: ActionKill, RuleID: "bad-architecture", Origin: "pod"}
	}
	name, _ := SyscallName(d.Arch, int(nr))
	narrow := abi == Arch386 || abi == ArchARM || abi == ArchX32
	for _, r := range s.Syscalls {
		ruleRank, ruleDec := outcome(r.Action, r.ErrnoRet, "")
		if rank, dec := outcome(s.DefaultAction, s.DefaultErrnoRet, ""); rank == ruleRank && dec == ruleDec || !slices.Contains(r.Names, name) {
			continue
		}
		all := true
		for _, a := range r.Args {
			c := Cond{Op: KnownOps()[slices.IndexFunc(KnownOps(), func(k OpInfo) bool { return k.OCI == a.Op })].Op, Value: a.Value}
			if c.Op == OpMaskedEqual {
				c.Mask, c.Value = a.Value, a.ValueTwo&a.Value
			}
			arg := d.Args[a.Index]
			if narrow {
				arg, c.Value, c.Mask = arg&0xffffffff, c.Value&0xffffffff, c.Mask&0xffffffff
			}
			all = all && c.holds(arg)
		}
		if all {
			return outcome(r.Action, r.ErrnoRet, "syscalls")
		}
	}
	return outcome(s.DefaultAction, s.DefaultErrnoRet, "default")
}

// refNewer is runc's stub: ENOSYS above the largest number that the profile names on that ABI.
func refNewer(p *Policy, abi Arch, nr uint32) bool {
	s := p.Pod
	if s.DefaultAction == specs.ActAllow || s.DefaultAction == specs.ActLog {
		return false
	}
	largest := func(a Arch) uint32 {
		top := 0
		for _, r := range s.Syscalls {
			for _, n := range r.Names {
				if _, _, mux := multiplexed(n); mux && a == Arch386 {
					continue
				}
				if k, ok := SyscallNumber(a, n); ok {
					top = max(top, k)
				}
			}
		}
		return uint32(top)
	}
	has := func(a Arch) bool { return a == p.Native || slices.Contains(s.Architectures, specs.Arch(a.Name())) }
	if p.Native == ArchAMD64 && (abi == ArchX32 || abi == ArchAMD64) {
		abi = ArchAMD64
		if nr&0x40000000 != 0 {
			abi = ArchX32
		}
	}
	if _, known := refABI(p.Native, &Data{Arch: abi.audit()}); !known || !has(abi) {
		return false
	}
	top := largest(abi)
	return top > 0 && nr > top
}
