// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A pod's own profile must be in force as runc with libseccomp would have it. Its meaning is theirs, quirks
// included: runc's libcontainer/seccomp and patchbpf (v1.5.0), libseccomp's rule database (2.6.0). Where the two
// would refuse a profile, so does Compile; where what they would make of it follows from no rule that one could
// state (callTree, blockSet), it is refused too.
//
// One bug of libseccomp (2.5.4, 2.6.0) is not followed: in a profile of up to 32 names that names a call which the
// architecture does not have, its filter may compare the architecture instead of the number (x86-64 with x32 listed,
// and 32-bit x86): then no rule ever matches. Here the rules are in force.

// podProfile is a profile as runc hands it to libseccomp.
type podProfile struct {
	flags  uint32
	def    podAction
	arches []Arch // beside the native one, those of its family
	others []Arch // those that a native kernel has not; they can only make rules contradict each other
	rules  []podRule
	stub   bool // runc answers ENOSYS above the largest number that the profile names
	blocks blockSet
}

// podAction is the value that the filter would return: what libseccomp compares actions by.
type podAction struct {
	rank  uint8
	errno uint16
}

type podRule struct {
	name  int // in the name list
	act   podAction
	args  []Cond
	entry int // in the profile's list
}

// podConfines says whether runc would load a filter for the profile at all.
func podConfines(s *specs.LinuxSeccomp) bool {
	return s != nil && (s.DefaultAction != "" || len(s.Syscalls) > 0)
}

func parsePod(p *Policy) (*podProfile, error) {
	s := p.Pod
	if !podConfines(s) {
		return nil, nil
	}
	flags, err := podFlags(s.Flags)
	if err != nil {
		return nil, err
	}
	pod := &podProfile{flags: flags, blocks: blockSet{known: map[block]blockID{}}}
	if err := pod.addArches(s.Architectures, p.Native); err != nil {
		return nil, err
	}
	if pod.def, err = podActionOf(s.DefaultAction, s.DefaultErrnoRet); err != nil {
		return nil, fmt.Errorf("defaultAction: %w", err)
	}
	if err := pod.def.check(); err != nil {
		return nil, fmt.Errorf("defaultErrnoRet: %w", err)
	}
	// runc compares with the whole return value, SCMP_ACT_ERRNO(ENOSYS); a profile cannot mean that by an errno
	pod.stub = pod.def.rank > rankLog && (s.DefaultErrnoRet == nil || *s.DefaultErrnoRet != 0x00050000|enosys)
	names := 0
	for i := range s.Syscalls {
		if names += len(s.Syscalls[i].Names); names > maxPodNames {
			return nil, fmt.Errorf("more than %d names in it", maxPodNames)
		}
		if err := pod.addEntry(i, &s.Syscalls[i]); err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
	}
	return pod, nil
}

func (pod *podProfile) addEntry(i int, e *specs.LinuxSyscall) error {
	act, err := podActionOf(e.Action, e.ErrnoRet)
	if err != nil {
		return err
	}
	args, err := podConds(e.Args)
	if err != nil {
		return err
	}
	// runc: conditions that share an argument become rules of their own, one each, any of which matches
	var groups [][]Cond
	switch {
	case sharesArgument(args):
		for j := range args {
			groups = append(groups, args[j:j+1])
		}
	default:
		groups = [][]Cond{args}
	}
	for _, name := range e.Names {
		if name == "" {
			return errors.New("an empty name")
		}
		at := nameIndex(name)
		if at < 0 {
			continue // runc: not of this kernel, then
		}
		if err := act.check(); err != nil {
			return fmt.Errorf("errnoRet: %w", err)
		}
		for _, g := range groups {
			pod.rules = append(pod.rules, podRule{at, act, g, i})
		}
	}
	return nil
}

func sharesArgument(args []Cond) bool {
	var seen [6]bool
	for _, c := range args {
		if seen[c.Index] {
			return true
		}
		seen[c.Index] = true
	}
	return false
}

func podConds(args []specs.LinuxSeccompArg) ([]Cond, error) {
	if len(args) > maxConds {
		return nil, fmt.Errorf("%d conditions: at most %d", len(args), maxConds)
	}
	var conds []Cond
	for i, a := range args {
		op := slices.IndexFunc(KnownOps(), func(k OpInfo) bool { return k.OCI == a.Op })
		switch {
		case op < 0:
			return nil, fmt.Errorf("args[%d]: %q is not an operator", i, a.Op)
		case a.Index > 5:
			return nil, fmt.Errorf("args[%d]: index %d: a call has arguments 0 to 5", i, a.Index)
		}
		c := Cond{Index: uint8(a.Index), Op: KnownOps()[op].Op, Value: a.Value}
		if c.Op == OpMaskedEqual {
			c.Mask, c.Value = a.Value, a.ValueTwo&a.Value
		}
		conds = append(conds, c)
	}
	return conds, nil
}

func podActionOf(a specs.LinuxSeccompAction, errno *uint) (podAction, error) {
	switch a {
	case specs.ActAllow:
		return podAction{rank: rankAllow}, nil
	case specs.ActLog:
		return podAction{rank: rankLog}, nil
	case specs.ActTrap:
		return podAction{rank: rankTrap}, nil
	case specs.ActKill, specs.ActKillThread:
		return podAction{rank: rankKillThread}, nil
	case specs.ActKillProcess:
		return podAction{rank: rankKillProcess}, nil
	case specs.ActErrno:
		e := uint16(eperm)
		if errno != nil {
			e = uint16(*errno) // runc and libseccomp keep the low 16 bits
		}
		return podAction{rankErrno, e}, nil
	case specs.ActTrace:
		return podAction{}, fmt.Errorf("%s needs a tracer, which a container under Metsuke does not get: "+
			"remove it, or run the pod under the profile passthrough", a)
	case specs.ActNotify:
		return podAction{}, fmt.Errorf("%s: the kernel allows one listener in a process tree, and it is Metsuke's: "+
			"remove it, or run the pod under the profile passthrough", a)
	}
	return podAction{}, fmt.Errorf("%q is not an action", a)
}

// check refuses what libseccomp does: its largest errno is one less than the kernel's.
func (a podAction) check() error {
	if a.rank == rankErrno && a.errno >= maxErrno {
		return fmt.Errorf("%d: libseccomp takes an errno below %d", a.errno, maxErrno)
	}
	return nil
}

func podFlags(list []specs.LinuxSeccompFlag) (uint32, error) {
	if list == nil {
		return FilterFlagSpecAllow, nil
	}
	var flags uint32
	for _, f := range list {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= FilterFlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= FilterFlagSpecAllow
		case "SECCOMP_FILTER_FLAG_TSYNC": // runc knows and ignores it
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return 0, fmt.Errorf("flag %s: the kernel takes it only with SCMP_ACT_NOTIFY, which is refused", f)
		default:
			return 0, fmt.Errorf("%q is not a flag", f)
		}
	}
	return flags, nil
}

// otherPodArches are the architectures that runc knows and we have no tables for. In a filter here they mean nothing:
// those of another byte order libseccomp refuses, the others have one of ours, of the same width, for a stand-in.
var otherPodArches = map[specs.Arch]Arch{
	specs.ArchMIPS: 0, specs.ArchMIPS64: 0, specs.ArchMIPS64N32: 0, specs.ArchPPC: 0, specs.ArchPPC64: 0, specs.ArchS390: 0, specs.ArchS390X: 0,
	specs.ArchMIPSEL: ArchARM, specs.ArchMIPSEL64N32: ArchARM,
	specs.ArchMIPSEL64: ArchARM64, specs.ArchPPC64LE: ArchARM64, specs.ArchRISCV64: ArchARM64, specs.ArchLOONGARCH64: ArchARM64,
}

func (pod *podProfile) addArches(list []specs.Arch, native Arch) error {
	put := func(to *[]Arch, a Arch) {
		if !slices.Contains(*to, a) {
			*to = append(*to, a)
		}
	}
	for _, name := range list {
		a := Arch(0)
		for _, k := range KnownArches() {
			if k.Name == string(name) {
				a = k.Arch
			}
		}
		switch standIn, other := otherPodArches[name]; {
		case a == native:
		case a != 0 && slices.Contains(native.family(), a):
			put(&pod.arches, a)
		case a != 0:
			put(&pod.others, a)
		case !other:
			return fmt.Errorf("%q is not an architecture", name)
		case standIn == 0:
			return fmt.Errorf("architecture %s has another byte order than %s", name, native.Name())
		default:
			put(&pod.others, standIn)
		}
	}
	return nil
}
