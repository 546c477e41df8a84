// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Continuer serves a listener: it lets every call go on, but for those it was told to refuse.
type Continuer struct {
	f    *os.File
	stop *os.File // the write end of a pipe: closed to stop
	done chan struct{}

	mu   sync.Mutex
	seen map[int]int // number of notifications by system call; guarded by mu
}

// struct seccomp_notif and struct seccomp_notif_resp of <linux/seccomp.h>.
type (
	notification struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	response struct {
		id           uint64
		val          int64
		error, flags uint32
	}
)

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	flagContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// Continue begins to serve f, and closes it at Close or at the end of the test. refuse maps system
// calls to the errno that they get; nil refuses none.
func Continue(t testing.TB, f *os.File, refuse map[int]unix.Errno) *Continuer {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &Continuer{f: f, stop: w, done: make(chan struct{}), seen: map[int]int{}}
	go c.serve(int(f.Fd()), r, refuse)
	t.Cleanup(c.Close)
	return c
}

func (c *Continuer) serve(fd int, stop *os.File, refuse map[int]unix.Errno) {
	defer close(c.done)
	defer stop.Close()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 || fds[0].Revents&unix.POLLIN == 0 {
			return
		}
		n := new(notification)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(n))); errno != 0 {
			continue // ENOENT: the task is gone
		}
		c.mu.Lock()
		c.seen[int(n.nr)]++
		c.mu.Unlock()
		resp := &response{id: n.id, flags: flagContinue}
		if errno, ok := refuse[int(n.nr)]; ok {
			resp.flags, resp.error = 0, uint32(-int32(errno))
		}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(resp))) //nolint:errcheck // ENOENT: gone
	}
}

// Seen returns how many notifications of a system call there were.
func (c *Continuer) Seen(nr int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[nr]
}

// Close stops serving and closes the listener: what is notified from then on fails with ENOSYS.
func (c *Continuer) Close() {
	c.stop.Close()
	<-c.done
	c.f.Close()
}

// NewListener returns a seccomp listener that nothing is notified to: its filter is on a thread of
// this process that is gone already.
func NewListener(t testing.TB) *os.File {
	t.Helper()
	type result struct {
		fd    uintptr
		errno unix.Errno
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		insn := unix.SockFilter{Code: ret, K: allow}
		prog := unix.SockFprog{Len: 1, Filter: &insn}
		_, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		if errno != 0 {
			results <- result{errno: errno}
			return
		}
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
		results <- result{fd, errno}
	}()
	r := <-results
	if r.errno != 0 {
		t.Fatalf("seccomp listener: %v", r.errno)
	}
	f := os.NewFile(r.fd, "listener")
	t.Cleanup(func() { f.Close() })
	return f
}

// FilterSelf puts all threads of this process under a filter that allows everything, for good.
func FilterSelf() error {
	runtime.LockOSThread() // no_new_privs is the thread's, and goes with the filter to the others
	defer runtime.UnlockOSThread()
	return loadFilter(unix.SECCOMP_FILTER_FLAG_TSYNC, []unix.SockFilter{{Code: ret, K: allow}})
}

// RefuseHere puts the calling thread, and what it starts, under a filter that refuses one call.
func RefuseHere(nr uint32, errno unix.Errno) error {
	return loadFilter(0, []unix.SockFilter{
		{Code: ldAbs}, {Code: jeq, Jf: 1, K: nr}, {Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}, {Code: ret, K: allow},
	})
}

func loadFilter(flags uintptr, insns []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}
