// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"metsuke.dev/metsuke/guest/plan"
)

// Numbers of the kernel's interface that package syscall does not have.
const (
	prCapBsetRead    = 23 // <linux/prctl.h>
	prCapBsetDrop    = 24
	prSetNoNewPrivs  = 38
	prCapAmbient     = 47
	prCapAmbientDrop = 3 // PR_CAP_AMBIENT_LOWER

	capVersion3 = 0x20080522 // <linux/capability.h>
	capSysAdmin = 21

	seccompSetModeFilter = 1 // <linux/seccomp.h>
	filterNewListener    = 1 << 3
	filterWaitKillable   = 1 << 5 // Linux 5.19

	futexWaitPrivate = 0x80 // <linux/futex.h>
	futexWakePrivate = 0x81

	atFDCWD   = -100 // <fcntl.h>
	atEaccess = 0x200
	xOK       = 1 // <unistd.h>
)

// prctl acts on the calling thread, as capabilities and no_new_privs do.
func prctl(option, arg uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, arg, 0, 0, 0, 0)
	return errno
}

// lowerCaps lowers the calling thread's ambient, bounding, inheritable and effective sets. Effective
// keeps CAP_SYS_ADMIN, which loading the filter may need. Permitted stays as it is, for it guards us
// (CAP_SYS_PTRACE); execve computes it and effective anew from the first three.
func lowerCaps(want plan.Caps) syscall.Errno {
	for c := range uintptr(64) {
		if want.Ambient&(1<<c) != 0 {
			continue
		}
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prCapAmbientDrop, c, 0, 0, 0)
		if errno == syscall.EINVAL { // past the kernel's last capability
			break
		}
		if errno != 0 {
			return errno
		}
	}
	for c := range uintptr(64) {
		has, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapBsetRead, c, 0)
		if errno == syscall.EINVAL {
			break
		}
		if errno != 0 || has == 0 || want.Bounding&(1<<c) != 0 {
			continue // dropping needs CAP_SETPCAP, even of what is not there
		}
		if errno := prctl(prCapBsetDrop, c); errno != 0 {
			return errno
		}
	}
	head := struct {
		version uint32
		pid     int32
	}{version: capVersion3}
	var sets [2]struct{ effective, permitted, inheritable uint32 }
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET,
		uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&sets)), 0)
	if errno != 0 {
		return errno
	}
	sets[0].inheritable &= uint32(want.Inheritable)
	sets[1].inheritable &= uint32(want.Inheritable >> 32)
	effective := want.Effective | 1<<capSysAdmin
	sets[0].effective &= uint32(effective)
	sets[1].effective &= uint32(effective >> 32)
	_, _, errno = syscall.RawSyscall(syscall.SYS_CAPSET,
		uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&sets)), 0)
	return errno
}

// setRlimit sets one limit of the process, past package syscall, which has ideas of its own about
// RLIMIT_NOFILE.
func setRlimit(r plan.Rlimit) syscall.Errno {
	lim := [2]uint64{r.Cur, r.Max}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(r.Resource),
		uintptr(unsafe.Pointer(&lim)), 0, 0, 0)
	return errno
}

// filterProgram is struct sock_fprog.
type filterProgram struct {
	len   uint16
	insns *byte
}

func newFilterProgram(insns []byte) *filterProgram {
	return &filterProgram{len: uint16(len(insns) / plan.InsnSize), insns: &insns[0]}
}

// loadFilter puts the filter on the calling thread. The listener is a new descriptor, close-on-exec.
//
//go:nosplit
func loadFilter(flags uintptr, prog *filterProgram) syscall.Errno {
	_, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetModeFilter, flags, uintptr(unsafe.Pointer(prog)))
	return errno
}

// isOpen says whether fd is open. A number that the kernel has only set aside is not.
func isOpen(fd int) bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return errno == 0
}

//go:nosplit
func futexWait(word *atomic.Uint32, value uint32) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(value), 0, 0, 0)
}

// futexWaitInSyscall waits as an ordinary goroutine does, so that it may take long.
func futexWaitInSyscall(word *atomic.Uint32, value uint32) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(value), 0, 0, 0)
}

func futexWake(word *atomic.Uint32) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}

// sleep sleeps for ns nanoseconds, less than a second, or until a signal.
func sleep(ns int64) {
	ts := syscall.Timespec{Nsec: ns}
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// execTarget is what execve gets, made beforehand.
type execTarget struct {
	name string
	file *byte
	argv []*byte
	envp []*byte
}

func newExecTarget(file string, argv, env []string) (*execTarget, error) {
	t := &execTarget{name: file}
	var err error
	if t.file, err = syscall.BytePtrFromString(file); err != nil {
		return nil, err
	}
	if t.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return nil, err
	}
	t.envp, err = syscall.SlicePtrFromStrings(env)
	return t, err
}

//go:nosplit
func execve(t *execTarget) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(t.file)),
		uintptr(unsafe.Pointer(&t.argv[0])), uintptr(unsafe.Pointer(&t.envp[0])))
	return errno
}
