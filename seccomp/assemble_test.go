// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// containerdDefault is the profile of containerd 2.4.2 for a container with the usual fourteen capabilities.
func containerdDefault(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	raw, err := os.ReadFile("testdata/containerd-default.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(raw, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// typicalPolicy is what a pod gets: containerd's default profile, a layer of denials, the usual audit classes.
func typicalPolicy(t testing.TB) Policy {
	t.Helper()
	p := Policy{Native: ArchAMD64, Pod: containerdDefault(t), Layers: []Layer{{Name: "baseline", Deny: []Rule{
		{ID: "ptrace", Syscalls: []string{"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"}},
		{ID: "mount", Syscalls: []string{"mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr"}},
		{ID: "namespace", Syscalls: []string{"unshare", "setns"}},
		{ID: "keyring", Syscalls: []string{"add_key", "request_key", "keyctl"}},
		{ID: "bpf", Syscalls: []string{"bpf", "perf_event_open", "userfaultfd"}},
		{ID: "io-uring", Syscalls: []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
		{ID: "new-namespace", Syscalls: []string{"clone"}, Args: bits(0, 0x10000000)},
		{ID: "vsock", Syscalls: []string{"socket"}, Args: is(0, 40)},
	}}}}
	for _, name := range []string{"exec", "file-write", "file-delete", "net", "privilege"} {
		c, ok := KnownClass(name)
		if !ok {
			t.Fatalf("no class %s", name)
		}
		p.Audit = append(p.Audit, c.Rules...)
	}
	return p
}

// constantAllow is seccomp_is_const_allow of kernel/seccomp.c (5.11): what the kernel does with the filter, when it is
// loaded, for each number, to find those that it need not be run for.
func constantAllow(filter []Instruction, arch Arch, nr int32) bool {
	var acc uint32
	for pc := 0; pc < len(filter); pc++ {
		in := filter[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.JT)
			} else {
				pc += int(in.JF)
			}
		}
		switch in.Code {
		case codeLoad:
			switch in.K {
			case offNr:
				acc = uint32(nr)
			case offArch:
				acc = uint32(arch)
			default:
				return false
			}
		case codeRet:
			return in.K == retAllow
		case codeJump:
			pc += int(in.K)
		case codeJEQ:
			jump(acc == in.K)
		case codeJGE:
			jump(acc >= in.K)
		case codeJGT:
			jump(acc > in.K)
		case codeJSet:
			jump(acc&in.K != 0)
		case codeAnd:
			acc &= in.K
		default:
			return false
		}
	}
	return false
}

// TestConstantAllow: what is allowed whatever the arguments is in reach of the kernel's bitmap.
func TestConstantAllow(t *testing.T) {
	for name, p := range map[string]Policy{"typical": typicalPolicy(t), "mixed": testPolicy()} {
		t.Run(name, func(t *testing.T) {
			prog := mustCompile(t, p)
			m := newVM(t, prog.Filter())
			rnd := rand.New(rand.NewPCG(1, 2))
			cached := map[string]bool{}
			for _, arch := range []Arch{ArchAMD64, Arch386} {
				EachSyscall(arch, func(nr int, name string) bool {
					constant := constantAllow(prog.filter, arch, int32(nr))
					always := true
					for n := range uint64(200) {
						d := &Data{Nr: int32(nr), Arch: arch, Args: [6]uint64{n, n, n, n, n, n}}
						for i := range d.Args {
							if n < 64 {
								continue
							}
							d.Args[i] = [...]uint64{0, 1, rnd.Uint64N(64), rnd.Uint64(), ^uint64(0)}[rnd.IntN(5)]
						}
						allowed := m.run(t, d) == retAllow
						if constant && !allowed {
							t.Errorf("%s: the kernel would cache it as allowed, and it is not always", name)
						}
						always = always && allowed
					}
					if always && !constant {
						t.Errorf("%s on %s is always allowed, and the kernel could not see it", name, arch.Name())
					}
					if constant && arch == ArchAMD64 {
						cached[name] = true
					}
					return true
				})
			}
			for _, plain := range []string{"read", "write", "close", "futex", "mmap", "epoll_wait", "fstat", "clock_gettime", "exit_group", "sched_yield"} {
				if !cached[plain] {
					t.Errorf("%s is not cached", plain)
				}
			}
			if len(cached) < 150 {
				t.Errorf("only %d calls are cached", len(cached))
			}
		})
	}
}

// manyRules returns a policy with so many conditional rules, each on a call and value of its own.
func manyRules(n int) Policy {
	var deny []Rule
	for i := range n {
		deny = append(deny, Rule{ID: fmt.Sprint("r", i), Syscalls: []string{nameAtNumber(ArchAMD64, i%300)}, Args: []Cond{
			{Index: uint8(i % 6), Op: OpEqual, Value: uint64(i)<<32 | uint64(i)},
			{Index: uint8((i + 1) % 6), Op: OpGreater, Value: uint64(i)},
		}})
	}
	return Policy{Native: ArchAMD64, Layers: []Layer{{Name: "many", Deny: deny}}}
}

func nameAtNumber(a Arch, nr int) string {
	name, ok := SyscallName(a, nr)
	if !ok {
		return "read"
	}
	return name
}

// TestDeepJumps: a filter many times longer than a jump reaches decides like the reference.
func TestDeepJumps(t *testing.T) {
	p := manyRules(300)
	prog := mustCompile(t, p)
	long := 0
	for _, in := range prog.Filter() {
		if in.Code == codeJump && in.K > 255 {
			long++
		}
	}
	if len(prog.filter) < 1500 || long == 0 {
		t.Fatalf("%d instructions, %d long jumps: too few for the test", len(prog.filter), long)
	}
	checkPolicy(t, p, rand.New(rand.NewPCG(3, 4)))
}

// TestTooLong: just below the kernel's limit a filter is made, above it the error says what to do.
func TestTooLong(t *testing.T) {
	longest := 0
	for n := 300; ; n += 50 {
		prog, err := Compile(manyRules(n))
		if err != nil {
			if !strings.Contains(err.Error(), "4096") || !strings.Contains(err.Error(), "fewer") {
				t.Errorf("no advice: %v", err)
			}
			break
		}
		longest = len(prog.Filter())
	}
	if longest > maxInstructions || longest < maxInstructions-800 {
		t.Errorf("the longest filter has %d instructions", longest)
	}
}

// TestLinear: rules in many layers cost the sum of their tests, not the product.
func TestLinear(t *testing.T) {
	size := func(layers int) int {
		p := Policy{Native: ArchAMD64, Pod: containerdDefault(t)}
		for i := range layers {
			p.Layers = append(p.Layers, Layer{Name: fmt.Sprint(i), Deny: []Rule{
				{ID: "a", Syscalls: []string{"socket"}, Args: []Cond{{Index: 0, Op: OpEqual, Value: uint64(100 + 2*i)}}},
				{ID: "b", Syscalls: []string{"socket"}, Args: []Cond{{Index: 1, Op: OpGreater, Value: uint64(100 + 3*i)}, {Index: 2, Op: OpLess, Value: 7}}},
			}})
		}
		return len(mustCompile(t, p).Filter())
	}
	// the first layer shuts the foreign ABIs out, so two and more are compared
	step := size(3) - size(2)
	if got, limit := size(40), size(2)+40*(step+4); got > limit {
		t.Errorf("40 layers: %d instructions, at most %d are linear (%d a layer)", got, limit, step)
	}
}

func BenchmarkCompile(b *testing.B) {
	p := typicalPolicy(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	raw, err := mustCompile(b, typicalPolicy(b)).MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := UnmarshalProgram(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	prog := mustCompile(b, typicalPolicy(b))
	for name, d := range map[string]*Data{
		"openat": call(b, "openat", 0, 0, 0x41), "execve": call(b, "execve"), "connect": call(b, "connect"), "denied": call(b, "mount"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prog.Decide(d)
			}
		})
	}
}
