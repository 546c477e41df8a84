// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func mustCompile(t testing.TB, p Policy) *Program {
	t.Helper()
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// call makes a call by name, on x86-64 if the name does not start with another ABI's ("386:read").
func call(t testing.TB, name string, args ...uint64) *Data {
	t.Helper()
	abi := ArchAMD64
	if short, rest, ok := strings.Cut(name, ":"); ok {
		var err error
		if abi, err = ParseArch(short); err != nil {
			t.Fatal(err)
		}
		name = rest
	}
	nr, ok := SyscallNumber(abi, name)
	if !ok {
		t.Fatalf("no call %s on %s", name, abi.Name())
	}
	d := &Data{Nr: int32(nr), Arch: abi.audit()}
	copy(d.Args[:], args)
	return d
}

// TestOperators: each operator at and around its value, in both halves of the register.
func TestOperators(t *testing.T) {
	const v = 1<<33 + 5
	values := []uint64{0, 4, 5, 6, 1<<33 + 4, v, 1<<33 + 6, 1<<34 + 5, 1<<34 + 4, 1<<32 + 5, ^uint64(0)}
	for _, c := range []struct {
		cond Cond
		want string // y or n for each value
	}{
		{Cond{Op: OpEqual, Value: v}, "nnnnnynnnnn"},
		{Cond{Op: OpNotEqual, Value: v}, "yyyyynyyyyy"},
		{Cond{Op: OpLess, Value: v}, "yyyyynnnnyn"},
		{Cond{Op: OpLessEqual, Value: v}, "yyyyyynnnyn"},
		{Cond{Op: OpGreater, Value: v}, "nnnnnnyyyny"},
		{Cond{Op: OpGreaterEqual, Value: v}, "nnnnnyyyyny"},
		{Cond{Op: OpMaskedEqual, Value: v, Mask: v}, "nnnnnynnnny"},
		{Cond{Op: OpMaskedEqual, Value: 0, Mask: v}, "ynnnnnnnnnn"},
		{Cond{Op: OpMaskedEqual, Value: 1 << 33, Mask: 1<<33 | 2}, "nnnnyynnnnn"},
	} {
		for index := range uint8(6) {
			c.cond.Index = index
			// munmap's arguments are 64 bits wide
			prog := mustCompile(t, Policy{Native: ArchAMD64, Layers: []Layer{{Name: "l", Deny: []Rule{{ID: "r", Syscalls: []string{"munmap"}, Args: []Cond{c.cond}}}}}})
			m := newVM(t, prog.Filter())
			for i, value := range values {
				d := call(t, "munmap")
				d.Args[index] = value
				denied := prog.Decide(d).Action == ActionDeny
				if want := c.want[i] == 'y'; denied != want {
					t.Errorf("%+v, argument %#x: denied %v, want %v", c.cond, value, denied, want)
				}
				if notified := m.run(t, d) == retUserNotif; notified != denied {
					t.Errorf("%+v, argument %#x: notified %v, denied %v", c.cond, value, notified, denied)
				}
			}
		}
	}
}

func conds(c ...Cond) []Cond { return c }

func testPolicy() Policy {
	errno := uint(13)
	return Policy{
		Native: ArchAMD64,
		Layers: []Layer{
			{Name: "floor", Architectures: []Arch{Arch386}, Deny: []Rule{
				{ID: "no-ptrace", Syscalls: []string{"ptrace", "bpf"}},
				{ID: "no-vsock", Syscalls: []string{"socket"}, Args: is(0, 40), Errno: 97},
			}, Kill: []Rule{{ID: "no-modules", Syscalls: []string{"init_module", "finit_module"}}}},
			{Name: "coder", Architectures: []Arch{Arch386, ArchX32}, Deny: []Rule{
				{ID: "no-ptrace-either", Syscalls: []string{"ptrace", "bpf"}, Errno: 38},
				{ID: "personality", Syscalls: []string{"personality"}},
				{ID: "unshare", Syscalls: []string{"unshare", "init_module"}},
			}, Allow: []Rule{
				{ID: "linux", Syscalls: []string{"personality"}, Args: is(0, 0)},
				{ID: "query", Syscalls: []string{"personality"}, Args: is(0, 0xffffffff)},
				{ID: "two", Syscalls: []string{"unshare"}, Args: conds(Cond{Index: 0, Op: OpGreater, Value: 4}, Cond{Index: 0, Op: OpLess, Value: 8})},
			}, Kill: []Rule{{ID: "kill-anyway", Syscalls: []string{"personality"}, Args: is(0, 0x20000)}}},
		},
		Audit: []AuditRule{
			{ID: "w", Class: "file-write", Syscalls: []string{"openat"}, Args: bits(2, 1)},
			{ID: "c", Class: "net", Syscalls: []string{"connect", "ptrace"}},
			{ID: "again", Class: "later", Syscalls: []string{"connect"}},
		},
		Pod: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: &errno, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 6, Op: specs.OpEqualTo}}},
			{Names: []string{"init_module"}, Action: specs.ActKillProcess},
			{Names: []string{"finit_module", "ptrace"}, Action: specs.ActTrap},
			{Names: []string{"connect", "getpid"}, Action: specs.ActLog},
		}},
	}
}

// TestPrecedence: which part of a policy decides, and what the filter returns for it.
func TestPrecedence(t *testing.T) {
	prog := mustCompile(t, testPolicy())
	m := newVM(t, prog.Filter())
	for _, c := range []struct {
		name string
		data *Data
		ret  uint32
		want Decision
	}{
		{"nothing says anything", call(t, "read"), retAllow, Decision{}},
		{"the first of equal layers", call(t, "bpf"), retUserNotif, Decision{Action: ActionDeny, Errno: 1, RuleID: "no-ptrace", Origin: "floor"}},
		{"a layer denies, with its errno", call(t, "socket", 40), retUserNotif, Decision{Action: ActionDeny, Errno: 97, RuleID: "no-vsock", Origin: "floor"}},
		{"and by 32 bits where the kernel reads 32", call(t, "socket", 7<<32|40), retUserNotif, Decision{Action: ActionDeny, Errno: 97, RuleID: "no-vsock", Origin: "floor"}},
		{"not another value", call(t, "socket", 41), retAllow, Decision{}},
		{"allow is an exception to deny", call(t, "personality", 0), retAllow, Decision{}},
		{"another allow", call(t, "personality", 0xffffffff), retAllow, Decision{}},
		{"deny beside it", call(t, "personality", 8), retUserNotif, Decision{Action: ActionDeny, Errno: 1, RuleID: "personality", Origin: "coder"}},
		{"kill before deny", call(t, "personality", 0x20000), retUserNotif, Decision{Action: ActionKill, RuleID: "kill-anyway", Origin: "coder"}},
		{"all conditions of a rule", call(t, "unshare", 5), retAllow, Decision{}},
		{"not one of them", call(t, "unshare", 8), retUserNotif, Decision{Action: ActionDeny, Errno: 1, RuleID: "unshare", Origin: "coder"}},
		{"the pod's errno", call(t, "unshare", 6), retUserNotif, Decision{Action: ActionDeny, Errno: 13, RuleID: "syscalls[0]", Origin: OriginPod}},
		{"the pod kills the process", call(t, "init_module"), retKillProcess, Decision{Action: ActionKill, RuleID: "syscalls[1]", Origin: OriginPod}},
		{"our kill before the pod's trap", call(t, "finit_module"), retUserNotif, Decision{Action: ActionKill, RuleID: "no-modules", Origin: "floor"}},
		{"the pod's trap before our deny", call(t, "ptrace"), retTrap, Decision{Action: ActionKill, RuleID: "syscalls[2]", Class: "net", Origin: OriginPod}},
		{"audit before the pod's log", call(t, "connect"), retUserNotif, Decision{Action: ActionAudit, RuleID: "c", Class: "net"}},
		{"the pod's log", call(t, "getpid"), retLog, Decision{}},
		{"audit by register", call(t, "openat", 0, 0, 0x41), retUserNotif, Decision{Action: ActionAudit, RuleID: "w", Class: "file-write"}},
		{"and not without", call(t, "openat", 0, 0, 0x40), retAllow, Decision{}},
		{"tracking is silent", call(t, "execve"), retUserNotif, Decision{Action: ActionAudit, Silent: true}},
		{"an ABI that all permit", call(t, "386:read"), retAllow, Decision{}},
		{"with its own numbers", call(t, "386:socket", 40), retUserNotif, Decision{Action: ActionDeny, Errno: 97, RuleID: "no-vsock", Origin: "floor"}},
		{"socketcall hides the arguments", call(t, "386:socketcall", 1), retUserNotif, Decision{Action: ActionDeny, Errno: 97, RuleID: "no-vsock", Origin: "floor"}},
		{"another number of it", call(t, "386:socketcall", 9), retAllow, Decision{}},
		{"audit of socketcall", call(t, "386:socketcall", 3), retUserNotif, Decision{Action: ActionAudit, RuleID: "c", Class: "net"}},
		{"32-bit registers", call(t, "386:personality", 5<<32), retAllow, Decision{}},
		{"an ABI that one does not permit", call(t, "x32:read"), retUserNotif, Decision{Action: ActionDeny, Errno: 38, RuleID: RuleForeignABI, Origin: "floor"}},
		{"a number that nobody knows", &Data{Nr: 5000, Arch: ArchAMD64}, retAllow, Decision{}},
		{"the number of a skipped call", &Data{Nr: -1, Arch: ArchAMD64}, retAllow, Decision{}},
		{"an architecture that cannot be", &Data{Arch: ArchARM}, retKillThread, Decision{Action: ActionKill, RuleID: RuleBadArch, Origin: OriginPod}},
	} {
		if got := prog.Decide(c.data); got != c.want {
			t.Errorf("%s: decided %+v, want %+v", c.name, got, c.want)
		}
		if ret := m.run(t, c.data); ret != c.ret {
			t.Errorf("%s: the filter returns %s, want %s", c.name, returnName(ret), returnName(c.ret))
		}
	}
}

func TestDefaultDeny(t *testing.T) {
	prog := mustCompile(t, Policy{Native: ArchARM64, Layers: []Layer{{Name: "strict", Default: ActionDeny, DefaultErrno: 13,
		Allow: []Rule{{ID: "a", Syscalls: []string{"read", "exit_group"}}, {ID: "b", Syscalls: []string{"write"}, Args: is(0, 1)}},
		Kill:  []Rule{{ID: "k", Syscalls: []string{"read"}, Args: is(0, 9)}}}}})
	m := newVM(t, prog.Filter())
	for _, c := range []struct {
		data *Data
		ret  uint32
		want Decision
	}{
		{call(t, "arm64:read"), retAllow, Decision{}},
		{call(t, "arm64:read", 9), retUserNotif, Decision{Action: ActionKill, RuleID: "k", Origin: "strict"}},
		{call(t, "arm64:write", 1), retAllow, Decision{}},
		{call(t, "arm64:write", 2), retUserNotif, Decision{Action: ActionDeny, Errno: 13, RuleID: "default", Origin: "strict"}},
		{call(t, "arm64:execve"), retUserNotif, Decision{Action: ActionDeny, Errno: 13, RuleID: "default", Origin: "strict"}},
		{&Data{Nr: 472, Arch: ArchARM64}, retUserNotif, Decision{Action: ActionDeny, Errno: 38, RuleID: "default", Origin: "strict"}},
		{call(t, "arm:read"), retUserNotif, Decision{Action: ActionDeny, Errno: 38, RuleID: "foreign-abi", Origin: "strict"}},
	} {
		if got := prog.Decide(c.data); got != c.want {
			t.Errorf("%s: decided %+v, want %+v", describe(c.data), got, c.want)
		}
		if ret := m.run(t, c.data); ret != c.ret {
			t.Errorf("%s: the filter returns %s, want %s", describe(c.data), returnName(ret), returnName(c.ret))
		}
	}
}

// TestEmpty: no policy, no cost.
func TestEmpty(t *testing.T) {
	for name, pod := range map[string]*specs.LinuxSeccomp{"no profile": nil, "an empty one": {}} {
		prog := mustCompile(t, Policy{Native: ArchAMD64, Pod: pod})
		if f := prog.Filter(); len(f) != 1 || f[0].K != retAllow {
			t.Errorf("%s: filter %v", name, f)
		}
		if got := prog.Decide(call(t, "execve")); got != (Decision{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDecideAllocates(t *testing.T) {
	prog := mustCompile(t, testPolicy())
	calls := []*Data{call(t, "openat", 0, 0, 1), call(t, "socket", 40), call(t, "read"), call(t, "386:socketcall", 3), {Nr: -1, Arch: 77}}
	if n := testing.AllocsPerRun(100, func() {
		for _, d := range calls {
			prog.Decide(d)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
