// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/seccomp"
)

// errShared is what Compile says of the few profiles that it does not carry (package seccomp, callTree).
const errShared = "cannot be carried"

// verdict is how the comparison of one profile ended.
type verdict int

const (
	same         verdict = iota // both decide every call tried alike
	bothRefuse                  // neither takes the profile
	oursRefuses                 // ours refuses what it says it cannot carry
	theirsBroken                // libseccomp's filter does not load the call's number
)

// compare has runc with libseccomp and package seccomp decide the same calls under the same profile.
func compare(profile *specs.LinuxSeccomp, rnd *rand.Rand) (verdict, error) {
	got, theirErr := load(profile)
	prog, ourErr := seccomp.Compile(seccomp.Policy{Native: seccomp.ArchAMD64, Pod: profile})
	var refused errRefused
	switch {
	case errors.Is(theirErr, errHung) && ourErr != nil:
		return bothRefuse, nil
	case theirErr != nil && !errors.As(theirErr, &refused):
		return 0, theirErr
	case theirErr != nil && refused.reason == errUnconfined.Error():
		if ourErr != nil || len(prog.Filter()) != 1 {
			return 0, fmt.Errorf("runc loads no filter, ours has one (%w)", ourErr)
		}
		return same, nil
	case theirErr != nil && ourErr != nil:
		return bothRefuse, nil
	case theirErr != nil:
		return 0, fmt.Errorf("only runc refuses the profile: %w", theirErr)
	case ourErr != nil && strings.Contains(ourErr.Error(), errShared):
		return oursRefuses, nil
	case ourErr != nil:
		return 0, fmt.Errorf("only ours refuses the profile: %w", ourErr)
	}
	if got.broken() {
		return theirsBroken, nil
	}
	if want := uint32(got.flags) &^ unix.SECCOMP_FILTER_FLAG_TSYNC; prog.FilterFlags() != want {
		return 0, fmt.Errorf("flags: ours %#x, runc's %#x", prog.FilterFlags(), want)
	}
	ours, err := ourVM(prog)
	if err != nil {
		return 0, err
	}
	for d := range calls(profile, rnd) {
		want, err := run(got.vm, d)
		if err != nil {
			return 0, err
		}
		ret, err := run(ours, d)
		if err != nil {
			return 0, err
		}
		if err := agree(prog, d, want, ret); err != nil {
			return 0, err
		}
	}
	return same, nil
}

// shrink takes entries, names and conditions out of a profile for as long as the comparison fails.
func shrink(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	fails := func(p *specs.LinuxSeccomp) bool {
		_, err := compare(p, seeded(0))
		return err != nil && !errors.Is(err, errHung)
	}
	try := func(change func(p *specs.LinuxSeccomp)) bool {
		c := *p
		c.Syscalls = slices.Clone(p.Syscalls)
		change(&c)
		if !fails(&c) {
			return false
		}
		p = &c
		return true
	}
	for i := len(p.Syscalls) - 1; i >= 0; i-- {
		if try(func(p *specs.LinuxSeccomp) { p.Syscalls = slices.Delete(p.Syscalls, i, i+1) }) {
			continue
		}
		for j := len(p.Syscalls[i].Names) - 1; j >= 0; j-- {
			try(func(p *specs.LinuxSeccomp) {
				p.Syscalls[i].Names = slices.Delete(slices.Clone(p.Syscalls[i].Names), j, j+1)
			})
		}
		for j := len(p.Syscalls[i].Args) - 1; j >= 0; j-- {
			try(func(p *specs.LinuxSeccomp) {
				p.Syscalls[i].Args = slices.Delete(slices.Clone(p.Syscalls[i].Args), j, j+1)
			})
		}
	}
	for i := len(p.Architectures) - 1; i >= 0; i-- {
		try(func(p *specs.LinuxSeccomp) { p.Architectures = slices.Delete(slices.Clone(p.Architectures), i, i+1) })
	}
	return p
}

// broken finds a bug of libseccomp up to 2.6.0: where the call that it sorts first is one that the architecture does
// not have (with x32 listed, or on 32-bit x86, in profiles of up to 32 names), it forgets to load the number, and
// compares the architecture with the numbers instead: no rule ever matches. Ours does what the profile says.
func (f *theirs) broken() bool {
	for i, in := range f.code {
		if in.Code != unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K || seccomp.Arch(in.K) != seccomp.ArchAMD64 && seccomp.Arch(in.K) != seccomp.Arch386 {
			continue
		}
		to := f.code[i+1+int(in.Jt)]
		if to.Code == unix.BPF_JMP|unix.BPF_JA {
			to = f.code[i+2+int(in.Jt)+int(to.K)]
		}
		if to.Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K {
			return true
		}
	}
	return false
}

// agree compares what the two return for one call: ours with what the supervisor then answers to a notification.
func agree(prog *seccomp.Program, d *seccomp.Data, want, ret uint32) error {
	dec := prog.Decide(d)
	if action := want & unix.SECCOMP_RET_ACTION_FULL; action == unix.SECCOMP_RET_ERRNO {
		want = action | min(want&unix.SECCOMP_RET_DATA, 4095)
	}
	final := ret
	if ret == unix.SECCOMP_RET_USER_NOTIF {
		switch {
		case dec.Action == seccomp.ActionDeny && dec.Origin == seccomp.OriginPod:
			final = unix.SECCOMP_RET_ERRNO | uint32(dec.Errno)
		case dec.Action == seccomp.ActionAudit && dec.Silent:
			final = unix.SECCOMP_RET_ALLOW
			if want == unix.SECCOMP_RET_LOG { // a call that is tracked goes on without the kernel's log
				want = unix.SECCOMP_RET_ALLOW
			}
		default:
			return fmt.Errorf("%+v: notified, and then %+v", d, dec)
		}
	}
	if final != want {
		name, _ := seccomp.SyscallName(d.Arch, int(d.Nr))
		return fmt.Errorf("%s %+v: runc's filter returns %#x, ours %#x, then %+v", name, d, want, ret, dec)
	}
	return nil
}

// calls yields every number that matters on every architecture, with arguments near the constants of the profile.
func calls(profile *specs.LinuxSeccomp, rnd *rand.Rand) func(func(*seccomp.Data) bool) {
	values := map[string][][2]uint64{} // by name: argument, constant
	for _, s := range profile.Syscalls {
		for _, n := range s.Names {
			for _, a := range s.Args {
				values[n] = append(values[n], [2]uint64{uint64(a.Index), a.Value}, [2]uint64{uint64(a.Index), a.ValueTwo})
			}
		}
	}
	return func(yield func(*seccomp.Data) bool) {
		for _, arch := range []seccomp.Arch{seccomp.ArchAMD64, seccomp.Arch386, seccomp.ArchARM64} {
			for _, nr := range numbers(arch) {
				d := seccomp.Data{Nr: nr, Arch: arch, IP: rnd.Uint64()}
				if !yield(&d) {
					return
				}
				name, _ := seccomp.SyscallName(arch, int(nr))
				near := values[name]
				if arch == seccomp.Arch386 && (name == "socketcall" || name == "ipc") {
					near = append(slices.Clone(near), [2]uint64{0, rnd.Uint64N(25)})
					for _, v := range values {
						near = append(near, v...)
					}
				}
				for range min(24, 6*len(near)) {
					d := seccomp.Data{Nr: nr, Arch: arch}
					for i := range d.Args {
						d.Args[i] = odd(rnd)
					}
					for range 1 + rnd.IntN(4) {
						v := near[rnd.IntN(len(near))]
						d.Args[v[0]%6] = nearby(v[1], rnd)
					}
					if name == "socketcall" || name == "ipc" {
						d.Args[0] = rnd.Uint64N(25) | odd(rnd)&0xffffffff00000000
					}
					if !yield(&d) {
						return
					}
				}
			}
		}
	}
}

func numbers(arch seccomp.Arch) []int32 {
	var list []int32
	for n := range int32(480) {
		list = append(list, n)
	}
	for _, n := range []uint32{1000, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0x80000029, 0xbfffffff, 0xc0000000, 0xc0000001, 0xfffffffe, 0xffffffff} {
		list = append(list, int32(n))
	}
	if arch == seccomp.ArchAMD64 {
		for n := range int32(560) {
			list = append(list, n|0x40000000)
		}
	}
	return list
}

func odd(rnd *rand.Rand) uint64 {
	switch rnd.IntN(4) {
	case 0:
		return 0
	case 1:
		return rnd.Uint64N(8)
	case 2:
		return rnd.Uint64() >> rnd.IntN(64)
	}
	return ^uint64(0)
}

func nearby(v uint64, rnd *rand.Rand) uint64 {
	switch rnd.IntN(8) {
	case 0:
		return v + 1
	case 1:
		return v - 1
	case 2:
		return v ^ 1<<32
	case 3:
		return v + 1<<32
	case 4:
		return v ^ 1<<rnd.IntN(64)
	}
	return v
}

func run(m *bpf.VM, d *seccomp.Data) (uint32, error) {
	in := make([]byte, 0, 64)
	in = binary.BigEndian.AppendUint32(in, uint32(d.Nr))
	in = binary.BigEndian.AppendUint32(in, uint32(d.Arch))
	in = binary.BigEndian.AppendUint64(in, d.IP<<32|d.IP>>32)
	for _, a := range d.Args {
		in = binary.BigEndian.AppendUint64(in, a<<32|a>>32)
	}
	ret, err := m.Run(in)
	return uint32(ret), err
}
