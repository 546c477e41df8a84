// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
)

// errProtocol means that a peer does not speak the protocol.
var errProtocol = errors.New("launcher broke the protocol")

// listenerLink is what /proc/self/fd shows for a seccomp listener (kernel/seccomp.c, init_listener).
const listenerLink = "anon_inode:seccomp notify"

// maxGroups bounds the supplementary groups of a launcher inside. A process may have 65536, and the kernel takes tens of
// milliseconds then to write /proc/<pid>/status.
const maxGroups = 1024

// peer is a process at the other end of a connection.
type peer struct {
	conn   *net.UnixConn
	pid    int
	pidfd  int
	groups int // how many supplementary groups it had when it connected
	closed sync.Once

	expired bool // it has waited for long enough to be expected; guarded by Rendezvous.mu
}

// newPeer identifies the process that connected.
func newPeer(conn *net.UnixConn) (*peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &peer{conn: conn, pidfd: -1}
	var opErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, opErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); opErr != nil {
			return
		}
		if cred.Pid <= 0 {
			opErr = errors.New("peer is not of this pid namespace")
			return
		}
		s.pid = int(cred.Pid)
		if s.groups, opErr = peerGroups(fd); opErr != nil {
			return
		}
		// The process that connected, even if its pid has been reused (Linux 6.5).
		s.pidfd, opErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(opErr, unix.ENOPROTOOPT) {
			s.pidfd, opErr = unix.PidfdOpen(s.pid, 0)
		}
		if errors.Is(opErr, unix.ESRCH) || errors.Is(opErr, unix.EINVAL) {
			s.pidfd, opErr = -1, nil // dead: its last message may still be worth reading
		}
	})
	if err = errors.Join(err, opErr); err != nil {
		return nil, fmt.Errorf("identify the peer: %w", err)
	}
	return s, nil
}

// alive says whether the process that connected still runs.
func (s *peer) alive() bool {
	return s.pidfd >= 0 && !exited(s.pidfd)
}

// runs says whether the peer's executable is the file that id names.
func (s *peer) runs(id FileID) bool {
	if id == (FileID{}) {
		return true
	}
	exe, err := IdentifyFile("/proc/" + strconv.Itoa(s.pid) + "/exe")
	return err == nil && exe == id
}

// unfiltered says whether the process stands under no seccomp filter. It is the peer only if that is alive afterwards.
func (s *peer) unfiltered() bool {
	if s.groups > maxGroups {
		return false
	}
	status, err := ReadStatus(s.pid)
	return err == nil && status.Seccomp == unix.SECCOMP_MODE_DISABLED
}

// launcher returns a descriptor of the process, for awaitExit, if it runs the helper; else nil.
func (s *peer) launcher(helper FileID) *os.File {
	if !s.runs(helper) {
		return nil
	}
	process, err := openProcess(s.pid)
	if err != nil {
		return nil
	}
	if !s.alive() { // what was looked at by its pid, here and in unfiltered, may have been another's
		process.Close()
		return nil
	}
	return process
}

// close ends the connection and forgets the process.
func (s *peer) close() {
	s.closed.Do(func() {
		s.conn.Close()
		if s.pidfd >= 0 {
			unix.Close(s.pidfd)
		}
	})
}

// readHello reads the first message.
func (s *peer) readHello() (token string, err error) {
	var head [plan.HeaderSize]byte
	if err := s.readFull(head[:]); err != nil {
		return "", err
	}
	t, size, err := plan.ParseHeader(head[:])
	if err != nil {
		return "", err
	}
	if t != plan.TypeHello {
		return "", plan.ErrType
	}
	body := make([]byte, size)
	if err := s.readFull(body); err != nil {
		return "", err
	}
	h, err := plan.DecodeHello(body)
	return h.Token, err
}

// outcome is what a launcher answers to its plan.
type outcome struct {
	listener *os.File // the seccomp listener, if err is nil
	err      error    // *ExecError, ErrDied, or wraps errProtocol
}

func (o *outcome) close() {
	if o.listener != nil {
		o.listener.Close()
		o.listener = nil
	}
}

// readOutcome reads the listener or the failure.
func (s *peer) readOutcome(exec bool) outcome {
	var head [plan.HeaderSize]byte
	fds, err := s.readWithDescriptors(head[:])
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return outcome{err: readError(err)}
	}
	t, size, err := plan.ParseHeader(head[:])
	switch {
	case err != nil:
		return outcome{err: fmt.Errorf("%w: %w", errProtocol, err)}
	case t == plan.TypeFailure:
		return outcome{err: s.readFailure(size, exec)}
	case t == plan.TypeListenerAt && len(fds) == 0:
		fd, err := s.fetchListener(size)
		if err != nil {
			return outcome{err: err}
		}
		fds = append(fds, fd)
	case t != plan.TypeListener || len(fds) != 1:
		return outcome{err: fmt.Errorf("%w: frame of type %d with %d descriptors", errProtocol, t, len(fds))}
	}
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fds[0]))
	if err != nil || link != listenerLink {
		return outcome{err: fmt.Errorf("%w: descriptor is %q, not a seccomp listener", errProtocol, link)}
	}
	f := os.NewFile(uintptr(fds[0]), listenerLink)
	fds = nil
	return outcome{listener: f}
}

// fetchListener takes a copy of a descriptor of the peer's, where the kernel does not let it send one (pidfd_getfd(2), Linux 5.6;
// it takes CAP_SYS_PTRACE).
func (s *peer) fetchListener(size int) (int, error) {
	body := make([]byte, size)
	if err := s.readFull(body); err != nil {
		return -1, readError(err)
	}
	number, err := plan.DecodeListenerAt(body)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errProtocol, err)
	}
	fd, err := unix.PidfdGetfd(s.pidfd, number, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: fetch descriptor %d of process %d: %w", errProtocol, number, s.pid, err)
	}
	return fd, nil
}

// readFailure reads the body of a failure.
func (s *peer) readFailure(size int, exec bool) error {
	body := make([]byte, size)
	if err := s.readFull(body); err != nil {
		return readError(err)
	}
	f, err := plan.DecodeFailure(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	return newExecError(f, exec)
}

// readError says what a failed read means. A connection that we closed ourselves is dropped anyway.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return ErrDied
	}
	return err
}

// readWithDescriptors fills b and returns the descriptors that came along, close-on-exec, at most
// one for each read. More than one in a message is an error, as is anything else beside the bytes.
func (s *peer) readWithDescriptors(b []byte) (fds []int, err error) {
	// Room for one descriptor exactly: the kernel installs no more (CmsgSpace would fit two).
	oob := make([]byte, unix.CmsgLen(4))
	for len(b) > 0 {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(b, oob)
		if oobn > 0 {
			fds = append(fds, descriptors(oob[:oobn])...)
		}
		if err != nil {
			return fds, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return fds, fmt.Errorf("%w: too many descriptors", errProtocol)
		}
		if n == 0 {
			return fds, io.EOF
		}
		b = b[n:]
		if len(fds) > 1 {
			return fds, fmt.Errorf("%w: too many descriptors", errProtocol)
		}
	}
	return fds, nil
}

// descriptors returns the descriptors of control messages.
func descriptors(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// openProcess returns a descriptor of the process, for awaitExit.
func openProcess(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	// Non-blocking makes os.NewFile use the poller, so that Close wakes awaitExit. As a flag of
	// pidfd_open it exists only since Linux 5.10.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// awaitExit blocks until the process ends (nil) or f is closed (an error).
func awaitExit(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		return exited(int(fd))
	})
}

// exited says whether the process of a pidfd has ended.
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
