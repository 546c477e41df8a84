// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Support is what the running kernel has of the protocol, beside the listener itself.
type Support struct {
	WaitKillable bool // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: a call that was received is not taken back by a signal (Linux 5.19)
	SyncWakeUp   bool // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: see NewListener (Linux 6.6)
}

// ErrTaken says that the caller itself is under a filter with a listener, above which the kernel allows no second one.
var ErrTaken = errors.New("this process has a seccomp listener above it already")

// Probe asks the kernel. It puts a thread of its own under a filter that allows everything, with a listener; the listener is gone when
// it returns, the thread ends, and no other thread is affected. The error says why there can be no listener at all.
func Probe() (s Support, err error) {
	onOwnThread(func() { s, err = probe() })
	return s, err
}

// onOwnThread calls do on a thread that ends afterwards.
func onOwnThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // a thread whose goroutine ends while locked ends too, but for the process's first
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(do) // which this thread cannot run
			runtime.UnlockOSThread()
			return
		}
		do()
	}()
	<-done
}

// probe binds the calling thread.
func probe() (s Support, err error) {
	// What loads a filter without CAP_SYS_ADMIN needs it (seccomp(2)).
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return s, fmt.Errorf("no_new_privs: %w", err)
	}
	fd, errno := allowEverything(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | waitKillable)
	s.WaitKillable = errno == 0
	if errno == unix.EINVAL {
		fd, errno = allowEverything(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	switch errno {
	case 0:
	case unix.EBUSY:
		return s, ErrTaken
	default:
		return s, fmt.Errorf("seccomp filter with a listener: %w", errno)
	}
	l, err := NewListener(fd)
	if err != nil {
		return s, errors.Join(err, unix.Close(fd))
	}
	s.SyncWakeUp = l.SyncWakeUp()
	return s, l.Close()
}
