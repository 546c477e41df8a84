// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

// capabilities are the names of linux/capability.h in the order of their numbers, up to Linux 6.x.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
	"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// mask returns the bits of named capabilities. Names are matched exactly and unknown ones count for nothing,
// as delegates do.
func mask(names []string) uint64 {
	var m uint64
	for _, name := range names {
		if n := slices.Index(capabilities, name); n >= 0 {
			m |= 1 << n
		}
	}
	return m
}

// Capabilities are those of a process as its specification has them, before [WidenCapabilities].
type Capabilities struct {
	// Spec is all five sets; nil if there are none, which is not the same as empty ones: delegates then leave a
	// root process what they have themselves.
	Spec *specs.LinuxCapabilities
	// Plan is what the launcher restores; execve(2) derives the workload's permitted and effective sets from it. It is
	// nil if Spec is, and the specification still names none.
	Plan *plan.Caps
}

// unnamed returns the sets that take the place of absent ones, where they cannot stay absent.
func unnamed(uid uint32) (*specs.LinuxCapabilities, error) {
	if uid != 0 {
		// The others are lost on the way from root to the user and at execve.
		return &specs.LinuxCapabilities{Bounding: capabilities}, nil
	}
	// The delegate cannot give more than it has, and it has what we have, being our child.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return nil, fmt.Errorf("capabilities of the shim: %w", err)
	}
	var held []string
	for n, name := range capabilities {
		if have[n/32].Permitted&(1<<(n%32)) != 0 {
			held = append(held, name)
		}
	}
	return &specs.LinuxCapabilities{Bounding: capabilities, Effective: held, Permitted: held}, nil
}

// loading is what loading a filter without no_new_privs and dropping to the original sets takes.
var loading = []string{"CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}

// guarding keeps the workload away from the launcher of an exec session, which is of its own user, and, before it can
// say that it is not dumpable, as open to it as any process: nobody without CAP_SYS_PTRACE may open the memory of a
// process that has a capability which he has not (security/commoncap.c, cap_ptrace_access_check). CAP_SETPCAP drops it.
var guarding = []string{"CAP_SETPCAP", "CAP_SYS_PTRACE"}

// resident is what the resident needs, to see and kill the processes of any user, to open their files in procfs and those
// of the cgroup, to mount, and to have a group that the workload's users are not; and what guarding and loading are for.
var resident = []string{
	"CAP_SYS_PTRACE", "CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID",
}

// A widening says how capabilities are widened.
type widening struct {
	load, loadNNP []string // what the launcher needs without no_new_privs, and with it

	// all says that these go into the inheritable and ambient sets too, whoever the user, and that absent capabilities are
	// named: an exec gets them from the container, and it may be of another user.
	all bool
	// bound says that an exec ends with no more than the container's own sets, whatever it asks.
	bound bool
}

// WidenCapabilities gives the launcher what it needs beside the process's own capabilities, and stores those in
// was. It comes after [NoNewPrivileges], on which it depends:
//
//   - The launcher always gets CAP_SYS_PTRACE, which guards it, and CAP_SETPCAP, to drop it.
//   - Without no_new_privs it gets CAP_SYS_ADMIN too, to load the filter.
//   - Of a user that is not root, the effective set also becomes inheritable and ambient, as far as the bounding set
//     has it. Delegates look for the executable and exec it with the effective set in force; now they exec the
//     launcher, which has to find and exec the workload's with the same rights (CAP_DAC_OVERRIDE), and only the
//     ambient set survives the execve of a user.
//
// The user stays. container are the container's own capabilities, for the exec of a process that names none:
// delegates then take the container's, which are widened. For init it is nil.
func WidenCapabilities(container, was *Capabilities) ProcessEdit {
	return widening{load: loading, loadNNP: guarding}.edit(container, was)
}

// WidenForResident is [WidenCapabilities] for guest placement. The resident is an exec of the container, and some
// delegates (dropped: see delegate.Traits.ExecDrops) give execs the container's capabilities instead of their own. So
// whatever the user and no_new_privs, everything that the resident needs goes into all five sets, of execs as well; with
// dropped, CAP_SYS_RESOURCE too, by which the launcher of an exec restores resource limits and the OOM score. Absent
// capabilities are named.
//
// was.Plan is never nil. With dropped, that of an exec is bounded by container's: what such a delegate
// alone would have given.
func WidenForResident(dropped bool, container, was *Capabilities) ProcessEdit {
	w := widening{load: resident, loadNNP: resident, all: true}
	if dropped {
		w.load, w.bound = slices.Concat(resident, []string{"CAP_SYS_RESOURCE"}), true
		w.loadNNP = w.load
	}
	return w.edit(container, was)
}

func (w widening) edit(container, was *Capabilities) ProcessEdit {
	return func(p *Process) error {
		*was = Capabilities{}
		uid, err := p.uid()
		if err != nil {
			return err
		}
		nnp, err := p.NoNewPrivileges()
		if err != nil {
			return err
		}
		have := &specs.LinuxCapabilities{}
		found, err := p.o.get("capabilities", have)
		if err != nil {
			return err
		}
		if !found {
			if have = nil; container != nil {
				have = container.Spec
			}
		}
		was.Spec = have
		if have == nil {
			widened := container != nil && container.Plan != nil
			if !w.all && !widened && (uid == 0 || nnp) {
				return nil // stays absent: what there is suffices, or no_new_privs does
			}
			if have, err = unnamed(uid); err != nil {
				return err
			}
		}
		if !found {
			if err := p.o.set("capabilities", have); err != nil {
				return err
			}
		}
		was.Plan = &plan.Caps{
			Bounding: mask(have.Bounding), Inheritable: mask(have.Inheritable), Ambient: mask(have.Ambient), Effective: mask(have.Effective),
		}
		if was.Spec == nil {
			was.Plan.Bounding = ^uint64(0) // those included that we do not know
		}
		if w.bound && container != nil {
			was.Plan.Bounding &= container.Plan.Bounding
			was.Plan.Inheritable &= container.Plan.Inheritable
			was.Plan.Ambient &= container.Plan.Ambient
			was.Plan.Effective &= container.Plan.Effective
		}
		load := w.load
		if nnp {
			load = w.loadNNP
		}
		var carry []string
		if uid != 0 {
			for _, c := range have.Effective {
				if slices.Contains(have.Bounding, c) { // else capset(2) refuses it as inheritable
					carry = append(carry, c)
				}
			}
		}
		if uid != 0 || w.all {
			carry = append(carry, load...)
		}
		return widen(p, have, load, carry)
	}
}

// RefuseTracer refuses a process that has CAP_SYS_PTRACE of its own, but not CAP_SYS_ADMIN, where its launcher is given the latter: for
// a resident, or without no_new_privs. The container's processes could write the launcher's memory and have it, on a kernel
// that is the node's. It comes after [NoNewPrivileges] and before the capabilities are widened.
func RefuseTracer(resident bool) ProcessEdit {
	return func(p *Process) error {
		nnp, err := p.NoNewPrivileges()
		if err != nil || nnp && !resident {
			return err
		}
		have := &specs.LinuxCapabilities{}
		if _, err := p.o.get("capabilities", have); err != nil {
			return err
		}
		own := mask(slices.Concat(have.Bounding, have.Effective, have.Permitted, have.Inheritable, have.Ambient))
		if own&(1<<unix.CAP_SYS_PTRACE) == 0 || own&(1<<unix.CAP_SYS_ADMIN) != 0 {
			return nil
		}
		return fmt.Errorf("capabilities: with CAP_SYS_PTRACE it could make CAP_SYS_ADMIN its own on the node, which what starts it here has: " +
			"remove it from the pod, or use a profile with noNewPrivileges and the supervisor's placement host, or a delegate with a VM")
	}
}

// GuardCapabilities gives a process that runs nothing of the pod's (the pause container) CAP_SYS_PTRACE. It makes no use
// of it; but containers that share its pid namespace, and are of its user, can then not open its memory and run code in
// a process that has no filter. Absent capabilities stay absent: then it has all of them.
func GuardCapabilities() ProcessEdit {
	return func(p *Process) error {
		have := &specs.LinuxCapabilities{}
		found, err := p.o.get("capabilities", have)
		if !found || err != nil {
			return err
		}
		uid, err := p.uid()
		if err != nil {
			return err
		}
		guard := []string{"CAP_SYS_PTRACE"}
		var carry []string
		if uid != 0 {
			carry = guard
		}
		return widen(p, have, guard, carry)
	}
}

// widen adds load to the bounding, effective and permitted sets of p, which are have, and carry to the others.
func widen(p *Process, have *specs.LinuxCapabilities, load, carry []string) error {
	o, err := p.o.child("capabilities")
	if err != nil {
		return err
	}
	for _, set := range []struct {
		name      string
		have, add []string
	}{
		{"bounding", have.Bounding, load},
		{"effective", have.Effective, load},
		{"inheritable", have.Inheritable, carry},
		{"permitted", have.Permitted, load},
		{"ambient", have.Ambient, carry},
	} {
		if _, err := o.find(set.name); err != nil {
			return err
		}
		wide := slices.Clone(set.have)
		for _, c := range set.add {
			if !slices.Contains(wide, c) {
				wide = append(wide, c)
			}
		}
		if len(wide) == len(set.have) {
			continue
		}
		if err := o.set(set.name, wide); err != nil {
			return err
		}
	}
	return nil
}
