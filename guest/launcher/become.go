// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"runtime"
	"sync/atomic"
	"syscall"

	"metsuke.dev/metsuke/guest/plan"
)

// What the two threads tell each other. The filtered thread reads and writes nothing else.
var (
	ready  atomic.Uint32 // 1: the reporter may begin to poll; a futex
	armed  atomic.Uint32 // 1: exec; a futex
	failed atomic.Uint32 // errno of execve, 0 before
)

// job is what the reporter needs; written before ready is.
var job struct {
	conn     int
	file     string
	listener int // the descriptor that the listener will be
}

// Pauses of the reporter, in nanoseconds, where it waits for the filtered thread: that one cannot
// wake it, for a futex call there may be notified and has no supervisor yet.
const (
	pauseLeast = 20_000
	pauseMost  = 1_000_000
)

// startReporter starts the thread that stays unfiltered, early, so that it is up when needed.
func startReporter() {
	// The filtered thread keeps its processor (in the Go runtime's sense) to the end; without a
	// second one the reporter would never run.
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	go report()
}

// become loads the filter, waits until it is armed, and execs.
func become(conn int, p *plan.Plan, target *execTarget) {
	prog := newFilterProgram(p.Filter)
	// The reporter finds the listener by its number and not by word from the filtered thread: the Go
	// runtime may interrupt that one at any instruction with a signal, and the return from the signal
	// is a system call, which may be notified and has no supervisor yet. The kernel takes the lowest
	// number that is free, and no other thread opens anything.
	next, err := syscall.Dup(conn)
	if err != nil {
		fail(conn, plan.StageFilter, errnoOf(err), "")
	}
	syscall.Close(next)
	job.conn, job.file, job.listener = conn, target.name, next
	ready.Store(1)
	futexWake(&ready)

	flags := uintptr(p.FilterFlags) | filterNewListener
	errno := loadFilter(flags|filterWaitKillable, prog)
	if errno == syscall.EINVAL { // before Linux 5.19
		errno = loadFilter(flags, prog)
	}
	if errno != 0 {
		fail(conn, plan.StageFilter, errno, "") // there is no filter then
	}
	filtered(target)
}

// filtered is what the filtered thread does. It and all it calls are nosplit: a stack check is
// where the Go scheduler takes over.
//
//go:nosplit
func filtered(target *execTarget) {
	for armed.Load() == 0 {
		futexWait(&armed, 0)
	}
	errno := execve(target)
	for errno == syscall.EINTR {
		errno = execve(target)
	}
	failed.Store(uint32(errno))
	for { // the reporter exits the process
		futexWait(&armed, 1)
	}
}

// report is the reporter: it hands the listener over, waits for the supervisor, and says what
// became of execve if that failed.
func report() {
	for ready.Load() == 0 {
		futexWaitInSyscall(&ready, 0)
	}
	wait(func() bool { return isOpen(job.listener) })
	if !sendListener(job.conn, job.listener) || !awaitArmed(job.conn) {
		syscall.Exit(exitFailed) // the supervisor is gone, or has given us up
	}
	// With a descriptor of ours open, the kernel would not fail pending calls once the supervisor
	// is gone.
	syscall.Close(job.listener)
	armed.Store(1)
	futexWake(&armed)
	wait(func() bool { return failed.Load() != 0 })
	explain(syscall.Errno(failed.Load()))
}

// explain ends the process after execve failed, as runc would have done where the file is at fault.
func explain(errno syscall.Errno) {
	switch errno {
	case syscall.ENOSYS, syscall.EPERM:
		// The supervisor is gone, or the profile forbids it.
		fail(job.conn, plan.StageExec, errno, job.file)
	}
	// The file was there and executable, so its format or its interpreter is wrong. runc finds that
	// out when the container has started already.
	complain("exec " + job.file + ": " + errno.Error())
	syscall.Exit(exitFailed)
}

// wait polls until done.
func wait(done func() bool) {
	for pause := int64(pauseLeast); !done(); pause = min(pause*5/4, pauseMost) {
		sleep(pause)
	}
}

// awaitArmed reads the supervisor's last message.
func awaitArmed(conn int) bool {
	head := make([]byte, plan.HeaderSize)
	if !receive(conn, head) {
		return false
	}
	t, _, err := plan.ParseHeader(head)
	return err == nil && t == plan.TypeArmed
}

// sendListener sends fd with an empty frame. The kernel counts the descriptors that are on their way from all processes of a
// user, on the whole node, and refuses more than RLIMIT_NOFILE of whoever sends one without being privileged (net/core/scm.c,
// too_many_unix_fds). So that nobody keeps others' launchers out by that, the supervisor may also fetch it by its number.
func sendListener(conn, fd int) bool {
	frame := plan.AppendHeader(nil, plan.TypeListener, 0)
	err := retry(func() error {
		n, err := syscall.SendmsgN(conn, frame, syscall.UnixRights(fd), nil, syscall.MSG_NOSIGNAL)
		if err == nil && n != len(frame) {
			return syscall.EPROTO
		}
		return err
	})
	if err == syscall.ETOOMANYREFS { //nolint:errorlint // see retry
		return send(conn, plan.AppendListenerAt(nil, fd))
	}
	return err == nil
}
