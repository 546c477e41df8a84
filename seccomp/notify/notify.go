// SPDX-License-Identifier: Apache-2.0

// Package notify speaks the seccomp user-notification protocol of seccomp_unotify(2): it takes the listener of a
// filter, receives the calls that the filter hands over, and answers them. It decides nothing.
//
// One goroutine serves one listener. Numbers of processes are those of the caller's own pid namespace.
package notify

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/seccomp"
)

// Request is one call that waits for our answer: struct seccomp_notif of <linux/seccomp.h>, field by field.
type Request struct {
	ID    uint64       // cookie for Valid and Respond
	PID   uint32       // the calling thread's id, in our pid namespace; 0 if it is not visible there
	Flags uint32       // always 0 today
	Data  seccomp.Data // number, architecture, instruction pointer, six registers: exact, not mutable by the caller
}

// Response is the answer to a request. The zero Response makes the call return 0 without running.
type Response struct {
	Error    int32 // a negated errno (-1 is EPERM), 0 for none
	Val      int64 // what the call returns if Error is 0
	Continue bool  // let the kernel run the call; Error and Val must be 0
}

// ErrVanished says that the notification is no longer there: its thread died, or a signal took it out of the call
// (the latter only on kernels before 5.19, which lack SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). The call did not run.
var ErrVanished = errors.New("seccomp notification: the caller is gone")

// ErrNotListener says that a file descriptor is not the listener of a seccomp filter.
var ErrNotListener = errors.New("not a seccomp listener")

// Readiness is what Wait found; several bits may be set.
type Readiness uint8

// Ready: a request can be received. Gone: no task uses the filter any more (it may still come with Ready); before
// Linux 6.11 a task that has ended uses it until it is reaped. Stopped: the stop descriptor is readable. None of them:
// the time ran out.
const (
	Ready Readiness = 1 << iota
	Gone
	Stopped
)

// Listener is one filter's notification descriptor. It is not safe for concurrent use, but for Close after the
// serving goroutine has ended.
type Listener struct {
	fd   int
	sync bool
	poll [2]unix.PollFd
}

// NewListener takes over fd after it has verified that fd is a seccomp listener and that the kernel's structures
// have the sizes we were built for. It asks for synchronous wake-up (Linux 6.6; about a tenth of the cost of a
// round trip), which older kernels do without. On error fd stays the caller's.
func NewListener(fd int) (*Listener, error) {
	if err := checkSizes(); err != nil {
		return nil, err
	}
	if err := verify(fd); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("seccomp listener fd %d: set close-on-exec: %w", fd, err)
	}
	l := &Listener{fd: fd}
	// Refusal (EINVAL before 6.6) costs speed only.
	l.sync = setFlags(fd, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) == 0
	return l, nil
}

// verify refuses every descriptor but a listener before any ioctl is tried on it: the number of an ioctl means
// something else to another driver. The link's text cannot be forged, as that of a file starts with a slash.
func verify(fd int) error {
	const want = "anon_inode:seccomp notify"
	var buf [64]byte
	n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), buf[:])
	if err != nil {
		return fmt.Errorf("fd %d: read its link under /proc/self/fd: %w", fd, err)
	}
	if got := string(buf[:n]); got != want {
		return fmt.Errorf("fd %d is %q: %w", fd, got, ErrNotListener)
	}
	if errno := idValid(fd, 0); errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("fd %d: SECCOMP_IOCTL_NOTIF_ID_VALID: %w", fd, errno)
	}
	return nil
}

// FD returns the descriptor; the Listener keeps it.
func (l *Listener) FD() int { return l.fd }

// SyncWakeUp tells whether the kernel granted synchronous wake-up.
func (l *Listener) SyncWakeUp() bool { return l.sync }

// Wait blocks until a request, the end of the last task, or stopFD (a negative one is ignored) is there, or until
// timeout has passed (negative: no limit). Poll before Receive is what makes Gone and stopFD work: kernels before
// 6.11 leave Receive blocked for ever when the last task ends, and closing a listener does not wake a receiver.
// ppoll(2) and not epoll, because only the former keeps the wake-up synchronous.
func (l *Listener) Wait(stopFD int, timeout time.Duration) (Readiness, error) {
	l.poll[0] = unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN}
	l.poll[1] = unix.PollFd{Fd: int32(stopFD), Events: unix.POLLIN}
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	n, err := unix.Ppoll(l.poll[:], ts, nil)
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return 0, nil
		}
		return 0, fmt.Errorf("poll seccomp listener: %w", err)
	}
	var r Readiness
	if n == 0 {
		return r, nil
	}
	if l.poll[0].Revents&unix.POLLIN != 0 {
		r |= Ready
	}
	if l.poll[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		r |= Gone
	}
	if l.poll[1].Revents != 0 {
		r |= Stopped
	}
	return r, nil
}

// Receive takes the next request; it blocks if there is none. ErrVanished means that the caller died first: wait
// again. A blocked Receive cannot be cancelled.
func (l *Listener) Receive(r *Request) error {
	for {
		*r = Request{} // the kernel refuses a structure that is not zero
		switch errno := receive(l.fd, r); errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOENT:
			return ErrVanished
		default:
			return fmt.Errorf("receive seccomp notification: %w", errno)
		}
	}
}

// Valid tells whether the request's thread still waits for its answer. What was read from that thread's memory or
// its /proc files belongs to it only if Valid says so afterwards: its number may have gone to another process.
func (l *Listener) Valid(id uint64) bool {
	return idValid(l.fd, id) == 0
}

// Respond answers a request. ErrVanished: there is nobody to answer any more.
func (l *Listener) Respond(id uint64, resp Response) error {
	switch errno := send(l.fd, id, resp); errno {
	case 0:
		return nil
	case unix.ENOENT:
		return ErrVanished
	default:
		return fmt.Errorf("answer seccomp notification: %w", errno)
	}
}

// Close gives the listener up. Every pending and later call that the filter hands over then fails with ENOSYS.
func (l *Listener) Close() error {
	fd := l.fd
	if fd < 0 {
		return nil
	}
	l.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close seccomp listener: %w", err)
	}
	return nil
}
