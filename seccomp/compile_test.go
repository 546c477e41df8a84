// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/internal/goldentest"
)

// TestErrors: what is wrong with a policy is said with its place and, where there is one, the way out.
func TestErrors(t *testing.T) {
	deny := func(r Rule) Policy {
		return Policy{Native: ArchAMD64, Layers: []Layer{{Name: "l", Deny: []Rule{r}}}}
	}
	cond := func(c ...Cond) Policy { return deny(Rule{ID: "r", Syscalls: []string{"read"}, Args: c}) }
	for _, c := range []struct {
		name   string
		policy Policy
		want   string
	}{
		{"architecture", Policy{Native: Arch386}, "SCMP_ARCH_X86"},
		{"unknown call", deny(Rule{ID: "r", Syscalls: []string{"opnat"}}), `layer "l": deny[0] (r): unknown system call "opnat": did you mean "openat"?`},
		{"no calls", deny(Rule{ID: "r"}), "no system call is named"},
		{"errno", deny(Rule{Syscalls: []string{"read"}, Errno: 4096}), "errno 4096"},
		{"index", cond(Cond{Index: 6, Op: OpEqual}), "args[0]: index 6"},
		{"operator", cond(Cond{Op: "equals"}), `unknown operator "equals"`},
		{"mask", cond(Cond{Op: OpMaskedEqual, Value: 4, Mask: 3}), "never match"},
		{"no mask", cond(Cond{Op: OpMaskedEqual}), "without a mask"},
		{"stray mask", cond(Cond{Op: OpEqual, Mask: 3}), "masked_eq only"},
		{"less than nothing", cond(Cond{Op: OpLess}), "never match"},
		{"two values", cond(Cond{Op: OpEqual, Value: 1}, Cond{Op: OpEqual, Value: 2}), "args[0] and args[1]"},
		{"empty range", cond(Cond{Op: OpLess, Value: 3}, Cond{Op: OpGreater, Value: 2}), "both cannot hold"},
		{"two masks", cond(Cond{Op: OpMaskedEqual, Value: 1, Mask: 3}, Cond{Op: OpMaskedEqual, Value: 2, Mask: 2}), "both cannot hold"},
		{"layer's name", Policy{Native: ArchAMD64, Layers: []Layer{{Name: "pod"}}}, "needs a name"},
		{"layer's default", Policy{Native: ArchAMD64, Layers: []Layer{{Name: "l", Default: ActionKill}}}, "not kill"},
		{"layer's architecture", Policy{Native: ArchAMD64, Layers: []Layer{{Name: "l", Architectures: []Arch{7}}}}, "unknown architecture"},
		{"audit", Policy{Native: ArchAMD64, Audit: []AuditRule{{ID: "a", Syscalls: []string{"raed"}}}}, `audit[0] (a): unknown system call "raed": did you mean "read"?`},
		{"layers", Policy{Native: ArchAMD64, Layers: make([]Layer, maxLayers+1)}, "65 layers"},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, c.policy, c.want) })
	}
	if err := (Rule{Syscalls: []string{"read", "s390_pci_mmio_read"}, Args: []Cond{{Op: OpGreater, Value: 1}, {Op: OpLess, Value: 3}}}).Validate(); err != nil {
		t.Errorf("a rule that is right: %v", err)
	}
}

func wantError(t *testing.T, p Policy, want string) {
	t.Helper()
	if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}

// TestPodErrors: profiles that runc refuses too, and those that cannot be in force under us.
func TestPodErrors(t *testing.T) {
	const arg = `"args":[{"index":%d,"value":%d,"op":"%s"}]`
	eq := func(i, v int) string { return fmt.Sprintf(arg, i, v, "SCMP_CMP_EQ") }
	gt := func(i, v int) string { return fmt.Sprintf(arg, i, v, "SCMP_CMP_GT") }
	for _, c := range []struct{ name, profile, want string }{
		{"no default", `{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, `defaultAction: "" is not an action`},
		{"notify", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, "syscalls[0]: SCMP_ACT_NOTIFY: the kernel allows one listener"},
		{"trace", `{"defaultAction":"SCMP_ACT_TRACE"}`, "needs a tracer"},
		{"action", `{"defaultAction":"SCMP_ACT_PERMIT"}`, `"SCMP_ACT_PERMIT" is not an action`},
		{"flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW"]}`, "is not a flag"},
		{"killable", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}`, "only with SCMP_ACT_NOTIFY"},
		{"architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}`, "is not an architecture"},
		{"byte order", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}`, "byte order"},
		{"errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4095}`, "defaultErrnoRet: 4095"},
		{"operator", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"op":"EQ"}]}]}`, "is not an operator"},
		{"index", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",` + eq(6, 1) + `}]}`, "index 6"},
		{"empty name", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[""],"action":"SCMP_ACT_KILL"}]}`, "an empty name"},
		{"contradiction", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",` + eq(0, 1) + `},{"names":["read"],"action":"SCMP_ACT_LOG",` + eq(0, 1) + `}]}`,
			"syscalls[1]: read on SCMP_ARCH_X86_64: another rule for the same call has another action"},
		{"shared continuation", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` +
			`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_NE"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},` +
			`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":3,"op":"SCMP_CMP_NE"},{"index":1,"value":4,"op":"SCMP_CMP_EQ"}]}]}`, "cannot be carried"},
		{"reused load", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` +
			`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2,"op":"SCMP_CMP_LT"}]},` +
			`{"names":["read"],"action":"SCMP_ACT_ALLOW",` + gt(1, 1<<32) + `}]}`, "cannot be carried"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s specs.LinuxSeccomp
			if err := json.Unmarshal([]byte(c.profile), &s); err != nil {
				t.Fatal(err)
			}
			wantError(t, Policy{Native: ArchAMD64, Pod: &s}, c.want)
		})
	}
}

// TestPodBounds: a profile as large as one likes is refused, and soon.
func TestPodBounds(t *testing.T) {
	many := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range uint64(maxPodChain + 1) {
		many.Syscalls = append(many.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Value: i * 3, Op: specs.OpEqualTo}}})
	}
	wantError(t, Policy{Native: ArchAMD64, Pod: many}, "conditional rules for one call")
	names := make([]string, maxPodNames+1)
	wantError(t, Policy{Native: ArchAMD64, Pod: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActKill}}}}, "names in it")
}

// TestPodFlags: what runc would pass to seccomp(2).
func TestPodFlags(t *testing.T) {
	for _, c := range []struct {
		flags []specs.LinuxSeccompFlag
		want  uint32
	}{
		{nil, FilterFlagSpecAllow},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}, FilterFlagLog},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, FilterFlagSpecAllow},
	} {
		prog := mustCompile(t, Policy{Native: ArchAMD64, Pod: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags}})
		if prog.FilterFlags() != c.want {
			t.Errorf("%v: flags %#x, want %#x", c.flags, prog.FilterFlags(), c.want)
		}
	}
}

// TestPodRanges: several conditions on one argument, as profiles shut single socket families out, are carried.
func TestPodRanges(t *testing.T) {
	rule := func(op specs.LinuxSeccompOperator, v uint64) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: v, Op: op}}}
	}
	prog := mustCompile(t, Policy{Native: ArchAMD64, Pod: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		rule(specs.OpLessThan, 38), rule(specs.OpEqualTo, 39), rule(specs.OpGreaterThan, 40),
	}}})
	for family, allowed := range map[uint64]bool{0: true, 37: true, 38: false, 39: true, 40: false, 41: true, 1 << 32: true, 1<<32 | 38: true} {
		if got := prog.Decide(call(t, "socket", family)); (got.Action == ActionAllow) != allowed {
			t.Errorf("family %#x: %+v", family, got)
		}
	}
}

// TestRender compares the readable forms of a small policy with the golden file.
func TestRender(t *testing.T) {
	p := testPolicy()
	var b strings.Builder
	b.WriteString(Disassemble(mustCompile(t, p).Filter()))
	for _, v := range OCI(p) {
		raw, err := json.MarshalIndent(v.Profile, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n%s:\n%s\n", v.Name, raw)
	}
	goldentest.Equal(t, "testdata/render.golden", b.String())
}
