// SPDX-License-Identifier: Apache-2.0

package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// OCIView is one part of a policy in OCI form.
type OCIView struct {
	Name    string // of the layer, OriginPod, or "audit"
	Profile *specs.LinuxSeccomp
}

// OCI returns the parts of a policy as OCI profiles, for people and for other tools. It is as near as that form can
// say it, and not what is loaded: OCI has no layers that decide on their own, no rule ids, and where an allow rule
// is an exception to a deny rule for the same call, libseccomp gives no promise which of the two wins.
func OCI(p Policy) []OCIView {
	var views []OCIView
	if podConfines(p.Pod) {
		views = append(views, OCIView{OriginPod, p.Pod})
	}
	for i := range p.Layers {
		views = append(views, OCIView{p.Layers[i].Name, p.Layers[i].oci(p.Native)})
	}
	if len(p.Audit) > 0 {
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: ociArches(p.Native, p.Native.family())}
		for _, r := range p.Audit {
			s.Syscalls = append(s.Syscalls, ociRule(r.Syscalls, r.Args, specs.ActNotify, nil))
		}
		views = append(views, OCIView{"audit", s})
	}
	return views
}

func (l *Layer) oci(native Arch) *specs.LinuxSeccomp {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: ociArches(native, l.Architectures)}
	if l.Default == ActionDeny {
		s.DefaultAction = specs.ActErrno
		errno := uint(orEPERM(l.DefaultErrno))
		s.DefaultErrnoRet = &errno
	}
	for _, r := range l.Kill {
		s.Syscalls = append(s.Syscalls, ociRule(r.Syscalls, r.Args, specs.ActKillProcess, nil))
	}
	for _, r := range l.Allow {
		s.Syscalls = append(s.Syscalls, ociRule(r.Syscalls, r.Args, specs.ActAllow, nil))
	}
	for _, r := range l.Deny {
		errno := uint(orEPERM(r.Errno))
		s.Syscalls = append(s.Syscalls, ociRule(r.Syscalls, r.Args, specs.ActErrno, &errno))
	}
	return s
}

func ociArches(native Arch, more []Arch) []specs.Arch {
	list := []specs.Arch{specs.Arch(native.Name())}
	for _, a := range more {
		if a != native {
			list = append(list, specs.Arch(a.Name()))
		}
	}
	return list
}

func ociRule(names []string, args []Cond, action specs.LinuxSeccompAction, errno *uint) specs.LinuxSyscall {
	call := specs.LinuxSyscall{Names: names, Action: action, ErrnoRet: errno}
	for _, c := range args {
		arg := specs.LinuxSeccompArg{Index: uint(c.Index), Value: c.Value}
		if c.Op == OpMaskedEqual {
			arg.Value, arg.ValueTwo = c.Mask, c.Value
		}
		for _, k := range KnownOps() {
			if k.Op == c.Op {
				arg.Op = k.OCI
			}
		}
		call.Args = append(call.Args, arg)
	}
	return call
}
