// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkPolicy compares the filter in an interpreter, Decide and the reference for every number that matters, with
// arguments near the policy's constants. It reports whether the policy could be compiled.
func checkPolicy(t testing.TB, p Policy, rnd *rand.Rand) bool {
	t.Helper()
	prog, err := Compile(p)
	if errors.Is(err, errTreeShared) || errors.Is(err, errTreeLoads) || errors.Is(err, errTreeConflict) {
		return false
	}
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	raw, err := prog.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := UnmarshalProgram(raw)
	if err != nil {
		t.Fatalf("unmarshal: %v", err)
	}
	if again.Digest() != prog.Digest() || again.FilterFlags() != prog.FilterFlags() {
		t.Fatal("the program is another one after it was marshaled")
	}
	m := newVM(t, prog.Filter())
	for d := range testCalls(&p, rnd) {
		want, wantRet := refDecide(&p, d)
		got := again.Decide(d)
		if strings.HasPrefix(got.RuleID, "syscalls[") {
			got.RuleID = "syscalls" // which of several rules of one action matches, is not said
		}
		if got != want {
			t.Fatalf("%s %+v\nDecide:    %+v\nreference: %+v", describe(d), d, got, want)
		}
		if ret := m.run(t, d); ret != wantRet {
			t.Fatalf("%s %+v\nfilter:    %s\nreference: %s, %+v", describe(d), d, returnName(ret), returnName(wantRet), want)
		}
	}
	return true
}

func describe(d *Data) string {
	name, _ := SyscallName(d.Arch, int(d.Nr))
	return fmt.Sprintf("%s on %s", name, d.ABI().Name())
}

func (p *Policy) constants() map[string][]Cond {
	c := map[string][]Cond{}
	add := func(names []string, args []Cond) {
		for _, n := range names {
			c[n] = append(c[n], args...)
		}
	}
	for _, l := range p.Layers {
		for _, list := range [][]Rule{l.Kill, l.Deny, l.Allow} {
			for _, r := range list {
				add(r.Syscalls, r.Args)
			}
		}
	}
	for _, r := range p.Audit {
		add(r.Syscalls, r.Args)
	}
	if p.Pod != nil {
		for _, s := range p.Pod.Syscalls {
			for _, a := range s.Args {
				add(s.Names, []Cond{{Index: uint8(a.Index), Value: a.Value, Mask: a.ValueTwo}})
			}
		}
	}
	return c
}

func testCalls(p *Policy, rnd *rand.Rand) func(func(*Data) bool) {
	constants := p.constants()
	var all []Cond
	for _, c := range constants {
		all = append(all, c...)
	}
	return func(yield func(*Data) bool) {
		for _, arch := range []Arch{ArchAMD64, Arch386, ArchARM64, ArchARM, 0x1234} {
			for _, nr := range testNumbers(arch) {
				d := Data{Nr: nr, Arch: arch, IP: rnd.Uint64()}
				if !yield(&d) {
					return
				}
				name, _ := SyscallName(arch, int(nr))
				near := constants[name]
				if name == "socketcall" || name == "ipc" {
					near = append(slices.Clone(near), all...)
				}
				for range min(12, 4*len(near)) {
					d := Data{Nr: nr, Arch: arch}
					for i := range d.Args {
						d.Args[i] = [...]uint64{0, rnd.Uint64N(8), rnd.Uint64(), ^uint64(0)}[rnd.IntN(4)]
					}
					for range 1 + rnd.IntN(3) {
						c := near[rnd.IntN(len(near))]
						v := [...]uint64{c.Value, c.Value, c.Mask, c.Value | c.Mask}[rnd.IntN(4)]
						switch rnd.IntN(8) {
						case 0:
							v++
						case 1:
							v--
						case 2:
							v ^= 1 << 32
						case 3:
							v ^= 1 << rnd.IntN(64)
						case 4:
							v |= 0xabcd << 32
						}
						d.Args[c.Index%6] = v
					}
					if name == "socketcall" || name == "ipc" {
						d.Args[0] = rnd.Uint64N(26) | uint64(rnd.IntN(2))<<16 | uint64(rnd.IntN(2))<<40
					}
					if !yield(&d) {
						return
					}
				}
			}
		}
	}
}

func testNumbers(arch Arch) []int32 {
	var list []int32
	EachSyscall(arch, func(nr int, _ string) bool {
		list = append(list, int32(nr))
		return true
	})
	for _, n := range []uint32{0, 335, 400, 471, 472, 511, 512, 1000, 0xf0000, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000,
		0x80000029, 0xbfffffff, 0xc0000000, 0xfffffffe, 0xffffffff} {
		list = append(list, int32(n))
	}
	if arch == ArchAMD64 {
		EachSyscall(ArchX32, func(nr int, _ string) bool {
			list = append(list, int32(nr))
			return true
		})
		list = append(list, x32Bit|472, x32Bit|511, x32Bit|548)
	}
	return list
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

func randomPolicy(rnd *rand.Rand) Policy {
	p := Policy{Native: pick(rnd, ArchAMD64, ArchAMD64, ArchARM64)}
	names := []string{"socket", "connect", "openat", "clone", "prctl", "shmget", "mmap", "accept", "setuid", "ioctl", "read", "socketcall", "ipc"}
	for range 6 {
		if n := nameAt(rnd.IntN(syscallCount)); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for i := range rnd.IntN(4) {
		l := Layer{Name: fmt.Sprint("layer", i), Default: pick(rnd, ActionAllow, ActionAllow, ActionDeny)}
		if rnd.IntN(2) == 0 {
			l.DefaultErrno = uint16(rnd.IntN(100))
		}
		for _, a := range []Arch{Arch386, ArchX32, ArchARM} {
			if rnd.IntN(3) > 0 {
				l.Architectures = append(l.Architectures, a)
			}
		}
		for _, list := range []*[]Rule{&l.Kill, &l.Deny, &l.Allow} {
			for j := range rnd.IntN(5) {
				r := Rule{ID: fmt.Sprint("rule", j), Syscalls: randomNames(rnd, names), Args: randomConds(rnd)}
				if rnd.IntN(2) == 0 {
					r.Errno = uint16(rnd.IntN(maxErrno + 1))
				}
				*list = append(*list, r)
			}
		}
		p.Layers = append(p.Layers, l)
	}
	if rnd.IntN(2) == 0 {
		for _, c := range Classes() {
			if rnd.IntN(4) == 0 {
				p.Audit = append(p.Audit, c.Rules...)
			}
		}
	}
	for j := range rnd.IntN(4) {
		p.Audit = append(p.Audit, AuditRule{fmt.Sprint("audit", j), "own", randomNames(rnd, names), randomConds(rnd)})
	}
	if rnd.IntN(2) == 0 {
		p.Pod = randomPod(rnd, names)
	}
	return p
}

func randomNames(rnd *rand.Rand, from []string) []string {
	var names []string
	for range 1 + rnd.IntN(3) {
		names = append(names, pick(rnd, from...))
	}
	return names
}

func randomConds(rnd *rand.Rand) []Cond {
	for {
		var conds []Cond
		for range rnd.IntN(4) {
			c := Cond{Index: uint8(rnd.IntN(6)), Op: pick(rnd, KnownOps()...).Op, Value: randomValue(rnd)}
			if rnd.IntN(2) == 0 {
				c.Index = uint8(rnd.IntN(2))
			}
			if c.Op == OpMaskedEqual {
				c.Mask = randomValue(rnd)
				c.Value &= c.Mask
			}
			conds = append(conds, c)
		}
		if validateRule("", []string{"read"}, conds) == nil {
			return conds
		}
	}
}

func randomValue(rnd *rand.Rand) uint64 {
	return pick(rnd, 0, 1, 2, 3, 40, 0xffff, 0x80000000, 0xffffffff, 1<<32, 1<<32+2, 1<<63, ^uint64(0), ^uint64(0)-3, rnd.Uint64())
}

// randomPod draws a profile in which each call has one action.
func randomPod(rnd *rand.Rand, names []string) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActAllow, specs.ActErrno, specs.ActLog, specs.ActTrap, specs.ActKill, specs.ActKillProcess}
	s := &specs.LinuxSeccomp{DefaultAction: pick(rnd, actions...)}
	if rnd.IntN(2) == 0 {
		e := pick[uint](rnd, 0, 1, 38, 4094)
		s.DefaultErrnoRet = &e
	}
	for _, a := range KnownArches() {
		if rnd.IntN(2) == 0 {
			s.Architectures = append(s.Architectures, specs.Arch(a.Name))
		}
	}
	for _, n := range names[:rnd.IntN(len(names))] {
		if n == "socketcall" || n == "ipc" {
			continue
		}
		if _, _, mux := multiplexed(n); mux && slices.Contains(s.Architectures, specs.ArchX86) {
			continue // for libseccomp a rule of another call too
		}
		action := pick(rnd, actions...)
		for range 1 + rnd.IntN(3) {
			r := specs.LinuxSyscall{Names: []string{n}, Action: action}
			seen := [6]bool{}
			for range rnd.IntN(3) {
				a := specs.LinuxSeccompArg{Index: uint(rnd.IntN(6)), Value: randomValue(rnd), ValueTwo: randomValue(rnd), Op: pick(rnd, KnownOps()...).OCI}
				if !seen[a.Index] {
					seen[a.Index] = true
					r.Args = append(r.Args, a)
				}
			}
			s.Syscalls = append(s.Syscalls, r)
		}
	}
	return s
}

// TestRandomPolicies is the fuzz target's body on policies that are always the same.
func TestRandomPolicies(t *testing.T) {
	compiled := 0
	const count = 150
	for seed := range uint64(count) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := randomPolicy(rnd)
		if checkPolicy(t, p, rnd) {
			compiled++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if compiled < count*3/4 {
		t.Errorf("only %d of %d policies were compared", compiled, count)
	}
}

func FuzzPolicy(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(binary.LittleEndian.AppendUint64(nil, seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var seed [32]byte
		copy(seed[:], data)
		rnd := rand.New(rand.NewChaCha8(seed))
		checkPolicy(t, randomPolicy(rnd), rnd)
	})
}
