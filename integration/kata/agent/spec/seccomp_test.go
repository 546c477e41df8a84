// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
)

func TestSeccompErrno(t *testing.T) {
	out, err := convertSeccomp(&grpc.LinuxSeccomp{
		DefaultAction: "SCMP_ACT_ERRNO",
		Flags:         []string{"SECCOMP_FILTER_FLAG_LOG"},
		Syscalls: []*grpc.LinuxSyscall{
			{Names: []string{"mount"}, Action: "SCMP_ACT_ERRNO"},
			{Names: []string{"mount"}, Action: "SCMP_ACT_ERRNO", ErrnoRet: &grpc.LinuxSyscall_Errnoret{Errnoret: 38}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.DefaultErrnoRet != nil {
		t.Error("the default action has a number: the agent's is always EPERM")
	}
	if a, b := out.Syscalls[0].ErrnoRet, out.Syscalls[1].ErrnoRet; a == nil || *a != 0 || b == nil || *b != 38 {
		t.Errorf("numbers %v and %v, want 0 and 38", a, b)
	}
}

func TestSeccompRefuses(t *testing.T) {
	rule := func(r *grpc.LinuxSyscall) *grpc.LinuxSeccomp {
		return &grpc.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Syscalls: []*grpc.LinuxSyscall{r}}
	}
	tests := map[string]*grpc.LinuxSeccomp{
		"unknown action":        {DefaultAction: "SCMP_ACT_SHRUG"},
		"unknown rule's action": rule(&grpc.LinuxSyscall{Names: []string{"read"}, Action: "SCMP_ACT_SHRUG"}),
		"unknown architecture":  {DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"SCMP_ARCH_VAX"}},
		"unknown flag":          {DefaultAction: "SCMP_ACT_ALLOW", Flags: []string{"SECCOMP_FILTER_FLAG_NEW"}},
		"flag not applied":      {DefaultAction: "SCMP_ACT_ALLOW", Flags: []string{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}},
		"unknown operator": rule(&grpc.LinuxSyscall{
			Names: []string{"read"}, Action: "SCMP_ACT_KILL", Args: []*grpc.LinuxSeccompArg{{Op: "SCMP_CMP_ABOUT"}}}),
		"no names":     rule(&grpc.LinuxSyscall{Action: "SCMP_ACT_KILL"}),
		"notification": rule(&grpc.LinuxSyscall{Names: []string{"read"}, Action: "SCMP_ACT_NOTIFY"}),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := convertSeccomp(in); err == nil {
				t.Error("it was accepted")
			}
		})
	}
	if out, err := convertSeccomp(nil); out != nil || err != nil {
		t.Errorf("no filter: %v, %v", out, err)
	}
}
