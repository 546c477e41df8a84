// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"fmt"
	"slices"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The vocabulary that the agent converts; anything else is a panic in TR:806-897.
var (
	seccompActions = []specs.LinuxSeccompAction{
		specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace,
		specs.ActAllow, specs.ActLog, specs.ActNotify,
	}
	seccompArchitectures = []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchRISCV64,
	}
	seccompOperators = []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
		specs.OpMaskedEqual,
	}
	// What it converts and then applies (RJ/seccomp.rs:13-20); WAIT_KILLABLE_RECV is converted and then refused.
	seccompFlags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}
)

// convertSeccomp gives the OCI form of a filter, or nil for none.
//
// The default action's errno is always EPERM (RJ/seccomp.rs:64); a rule that says SCMP_ACT_ERRNO and no number gets 0, so
// that the call seems to succeed and does nothing (TR:848). A filter with SCMP_ACT_NOTIFY is refused: the real agent loads it
// and nobody ever serves its listener, runc refuses to load it without one.
func convertSeccomp(in *grpc.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	if in == nil {
		return nil, nil
	}
	out := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(in.DefaultAction)}
	actions := []specs.LinuxSeccompAction{out.DefaultAction}
	for _, a := range in.Architectures {
		if !slices.Contains(seccompArchitectures, specs.Arch(a)) {
			return nil, fmt.Errorf("failed to parse LinuxSeccomp %q to Enum Arch", a)
		}
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range in.Flags {
		if !slices.Contains(seccompFlags, specs.LinuxSeccompFlag(f)) {
			return nil, errors.New("Invalid seccomp flag")
		}
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	for _, s := range in.Syscalls {
		number := uint(s.GetErrnoret())
		rule := specs.LinuxSyscall{Names: s.Names, Action: specs.LinuxSeccompAction(s.Action), ErrnoRet: &number}
		if len(s.Names) == 0 {
			return nil, errors.New("syscall name is required")
		}
		for _, a := range s.Args {
			op := specs.LinuxSeccompOperator(a.Op)
			if !slices.Contains(seccompOperators, op) {
				return nil, fmt.Errorf("failed to parse LinuxSeccompArg %q to Enum LinuxSeccompOperator", a.Op)
			}
			rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: uint(a.Index), Value: a.Value, ValueTwo: a.ValueTwo, Op: op})
		}
		actions = append(actions, rule.Action)
		out.Syscalls = append(out.Syscalls, rule)
	}
	for _, a := range actions {
		if !slices.Contains(seccompActions, a) {
			return nil, fmt.Errorf("failed to parse %q to Enum LinuxSeccompAction", a)
		}
		if a == specs.ActNotify {
			return nil, errors.New("SCMP_ACT_NOTIFY has nobody to answer it")
		}
	}
	return out, nil
}
