// SPDX-License-Identifier: Apache-2.0

//go:build seccomp && linux && amd64 && cgo

package libseccomp

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	ctrdseccomp "github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"

	"metsuke.dev/metsuke/seccomp"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "seed of the random profiles")
	countFlag = flag.Int("profiles", 500, "how many random profiles")
)

// common returns the calls that the installed libseccomp knows with our numbers: those that it is too old for would
// make it decide otherwise, and that is not ours to follow.
var common = sync.OnceValue(func() map[string]bool {
	ok := map[string]bool{}
	abis := map[seccomp.Arch]libseccomp.ScmpArch{
		seccomp.ArchAMD64: libseccomp.ArchAMD64, seccomp.Arch386: libseccomp.ArchX86, seccomp.ArchX32: libseccomp.ArchX32,
	}
	for _, a := range seccomp.KnownArches() {
		seccomp.EachSyscall(a.Arch, func(_ int, name string) bool {
			ok[name] = true
			return true
		})
	}
	for name := range ok {
		for ours, theirs := range abis {
			number, known := seccomp.SyscallNumber(ours, name)
			got, err := libseccomp.GetSyscallFromNameByArch(name, theirs)
			if err != nil || got >= 0 && (!known || number != int(got)) || got < -1000 && known {
				delete(ok, name)
			}
		}
	}
	return ok
})

func commonNames(t *testing.T) []string {
	var names []string
	for n := range common() {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) < 400 {
		t.Fatalf("only %d calls in common with libseccomp", len(names))
	}
	return names
}

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(*seedFlag, n)) }

func mustAgree(t *testing.T, profile *specs.LinuxSeccomp, want verdict) {
	t.Helper()
	got, err := compare(profile, seeded(0))
	if err != nil {
		t.Errorf("%v", err)
	} else if got != want {
		t.Errorf("verdict %d, want %d", got, want)
	}
	if t.Failed() {
		raw, _ := json.Marshal(shrink(profile))
		t.Logf("shrunk: %s", raw)
	}
}

// TestContainerdDefault: the profile that most pods have, as containerd makes it for several sets of capabilities.
func TestContainerdDefault(t *testing.T) {
	known := common()
	for _, caps := range [][]string{
		nil,
		{"CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_SETUID"},
		{"CAP_SYS_ADMIN"},
		{"CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_SYS_BOOT", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON"},
	} {
		t.Run(fmt.Sprint(caps), func(t *testing.T) {
			profile := ctrdseccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
			for i := range profile.Syscalls {
				profile.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(profile.Syscalls[i].Names), func(n string) bool {
					return seccomp.KnownSyscall(n) && !known[n]
				})
			}
			mustAgree(t, profile, same)
		})
	}
}

// TestRandomProfiles compares profiles drawn at random, of every action, operator, default, architecture and flag.
func TestRandomProfiles(t *testing.T) {
	names := commonNames(t)
	t.Logf("seed %d, %d profiles", *seedFlag, *countFlag)
	var next, refused, both, broken, failed atomic.Int64
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(*countFlag) || failed.Load() > 3 {
					return
				}
				profile := randomProfile(seeded(uint64(i)), names)
				got, err := compare(profile, seeded(uint64(i)))
				switch {
				case err != nil:
					failed.Add(1)
					raw, _ := json.Marshal(shrink(profile))
					t.Errorf("profile %d: %v\nshrunk: %s", i, err, raw)
				case got == oursRefuses:
					refused.Add(1)
				case got == theirsBroken:
					broken.Add(1)
				case got == bothRefuse:
					both.Add(1)
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d refused by both, %d by ours alone; %d filters of libseccomp do not load the number", both.Load(), refused.Load(), broken.Load())
	if refused.Load()+both.Load()+broken.Load() > int64(*countFlag)/2 {
		t.Error("too few profiles were compared")
	}
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

var actions = []specs.LinuxSeccompAction{
	specs.ActAllow, specs.ActAllow, specs.ActErrno, specs.ActErrno, specs.ActLog, specs.ActTrap, specs.ActKill, specs.ActKillThread, specs.ActKillProcess,
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual,
}

func randomErrno(rnd *rand.Rand) *uint {
	if rnd.IntN(3) == 0 {
		return nil
	}
	e := pick[uint](rnd, 0, 1, 13, 38, 4095, 4096, 65535, 65536+5, 0x50026)
	return &e
}

func randomProfile(rnd *rand.Rand, names []string) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: pick(rnd, actions...), DefaultErrnoRet: randomErrno(rnd)}
	for i, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchMIPSEL64, specs.ArchARM, specs.ArchPPC} {
		if rnd.IntN(2) == 0 && (i < 3 || i < 5 && rnd.IntN(5) == 0 || rnd.IntN(40) == 0) {
			p.Architectures = append(p.Architectures, a)
		}
	}
	if rnd.IntN(2) == 0 {
		p.Flags = []specs.LinuxSeccompFlag{}
		for _, f := range []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC"} {
			if rnd.IntN(2) == 0 {
				p.Flags = append(p.Flags, f)
			}
		}
	}
	few := append([]string{"socket", "accept", "shmget", "read", "clone"}, names[rnd.IntN(len(names)-8):][:8]...)
	// within one profile mostly one action for the rules with conditions: two often contradict each other, and then
	// there is nothing to compare
	action := pick(rnd, actions...)
	for range rnd.IntN(pick(rnd, 4, 12, 60)) {
		s := specs.LinuxSyscall{Action: action, ErrnoRet: randomErrno(rnd)}
		if rnd.IntN(6) == 0 {
			s.Action = pick(rnd, actions...)
		}
		from := few
		if rnd.IntN(3) == 0 {
			from = names
		}
		for range 1 + rnd.IntN(3) {
			s.Names = append(s.Names, pick(rnd, from...))
		}
		if rnd.IntN(8) == 0 {
			s.Names = append(s.Names, "no_such_call")
		}
		if rnd.IntN(4) > 0 {
			for range 1 + rnd.IntN(pick(rnd, 1, 2, 3)) {
				s.Args = append(s.Args, randomArg(rnd))
			}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func randomArg(rnd *rand.Rand) specs.LinuxSeccompArg {
	value := func() uint64 {
		v := pick(rnd, 0, 1, 2, 3, 5, 40, 0xffffffff, 0x80000000, 1<<32, 1<<32+2, 1<<63, ^uint64(0), rnd.Uint64())
		if rnd.IntN(4) == 0 {
			v ^= rnd.Uint64N(4)
		}
		return v
	}
	a := specs.LinuxSeccompArg{Index: uint(rnd.IntN(6)), Op: pick(rnd, operators...), Value: value()}
	if rnd.IntN(2) == 0 {
		a.Index = uint(rnd.IntN(2))
	}
	if a.Op == specs.OpMaskedEqual || rnd.IntN(4) == 0 {
		a.ValueTwo = value()
	}
	return a
}
