// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"fmt"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deadly are the signals that end the process though package os/signal ignores them: those that C libraries use among their
// threads (32, 34), which the Go runtime leaves alone; and those of faults, which it takes for faults of its own if they do
// not say that they come from kill(2): rt_sigqueueinfo(2) lets the sender say what it likes. A true fault of an ignored
// kind ends the process (kernel/signal.c, force_sig_info_to_task).
var deadly = [...]unix.Signal{
	unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGSYS, 32, 34,
}

// ignoreSignals has all signals ignored that can be.
func ignoreSignals() error {
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP:
		case unix.SIGURG: // the Go runtime's own, as is 33, and harmless
		default:
			signal.Ignore(s)
		}
	}
	ignore := struct { // struct sigaction of the kernel, the same size or more on all architectures
		handler, flags, restorer uintptr
		mask                     uint64
	}{handler: 1} // SIG_IGN
	for _, s := range deadly {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&ignore)), 0, unsafe.Sizeof(ignore.mask), 0, 0)
		if errno != 0 {
			return fmt.Errorf("ignore signal %d: %w", s, errno)
		}
	}
	return nil
}
