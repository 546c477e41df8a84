// SPDX-License-Identifier: Apache-2.0

// Package notifytest gives tests a process under a real seccomp filter, and its listener: the test binary executes
// itself, installs the filter as a launcher does, sends the listener over a socket pair, waits to be armed and execs
// the program.
//
// A test binary that uses it calls Main first thing in TestMain. It needs root, or a user with CAP_SYS_PTRACE.
package notifytest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// launchEnv marks the test binary's life as a launcher; its value is the filter, in hex.
const launchEnv = "METSUKE_NOTIFYTEST_FILTER"

// socketFD is where the launcher finds its socket.
const socketFD = 3

func init() {
	// The main thread is the one that installs the filter and execs, so that the event's tid is the process's.
	if os.Getenv(launchEnv) != "" {
		runtime.LockOSThread()
	}
}

// Main turns a test binary into the launcher if it was executed as one, and does not return then.
func Main() {
	program := os.Getenv(launchEnv)
	if program == "" {
		return
	}
	if err := launch(program); err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(120)
	}
}

func launch(program string) error {
	raw, err := hex.DecodeString(program)
	if err != nil {
		return err
	}
	os.Unsetenv(launchEnv)
	argv, env := os.Args[1:], os.Environ()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// What the filter notifies, the thread that it binds cannot call before somebody listens: another one, which
	// must be there before, does the talking.
	ready, listener, armed := make(chan struct{}), make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		close(ready)
		armed <- handOver(<-listener)
	}()
	<-ready
	fd, errno := install(raw)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	listener <- fd
	if err := <-armed; err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, env)
}

// handOver sends the listener and waits to be armed.
func handOver(fd int) error {
	if err := unix.Sendmsg(socketFD, []byte{'L'}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send listener: %w", err)
	}
	// A copy of ours would keep the listener alive while our own exec waits for an answer from it.
	unix.Close(fd)
	unix.CloseOnExec(socketFD)
	var armed [1]byte
	if n, err := unix.Read(socketFD, armed[:]); n != 1 {
		return fmt.Errorf("not armed: %w", err)
	}
	return nil
}

// Process is a launched program.
type Process struct {
	Listener int // descriptor; the test's to close or to give away
	Stdin    *os.File
	t        testing.TB
	cmd      *exec.Cmd
	socket   int
	out      bytes.Buffer
	waited   bool
}

// Launch starts a launcher under a filter that notifies the calls with the numbers nrs and allows all others. It has
// not exec'd yet: see Arm. The process is killed when the test ends.
func Launch(t testing.TB, nrs []int, argv ...string) *Process {
	t.Helper()
	return LaunchFilter(t, Filter(nrs), nil, argv...)
}

// LaunchFilter does the same with any filter, as the bytes of its instructions, and with attributes for the process.
func LaunchFilter(t testing.TB, filter []byte, attr *syscall.SysProcAttr, argv ...string) *Process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: a supervisor reads other processes' memory")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close() // if it does not come so far as to be the launcher's alone
	stdin, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	p := &Process{t: t, socket: pair[0], Stdin: write}
	p.cmd = exec.Command("/proc/self/exe", argv...)
	p.cmd.Env = []string{launchEnv + "=" + hex.EncodeToString(filter)}
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, &p.out, &p.out
	p.cmd.SysProcAttr = attr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.Wait()
	})
	theirs.Close() // so that the end of a launcher that dies is seen
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(p.socket, data, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		p.Kill()
		t.Fatalf("no listener from the launcher (%v): %s", err, p.Wait())
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	p.Listener = fds[0]
	return p
}

// PID is the process's id, also after the exec.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Arm lets the launcher exec the program.
func (p *Process) Arm() {
	if _, err := unix.Write(p.socket, []byte{'A'}); err != nil {
		p.t.Error(err)
	}
}

// Kill sends SIGKILL.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Wait waits for the end and returns what the program printed on both its outputs.
func (p *Process) Wait() string {
	if !p.waited {
		p.waited = true
		p.Stdin.Close()
		_ = p.cmd.Wait()
		unix.Close(p.socket)
	}
	return p.out.String()
}

// State tells how the process ended, after Wait.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// Filter returns the bytes of a filter that notifies the calls with the numbers nrs and allows all others.
func Filter(nrs []int) []byte {
	const (
		load  = 0x20 // BPF_LD | BPF_W | BPF_ABS
		jeq   = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
		ret   = 0x06 // BPF_RET | BPF_K
		allow = 0x7fff0000
		user  = 0x7fc00000
	)
	var b []byte
	insn := func(code uint16, jt, jf uint8, k uint32) {
		b = append(b, byte(code), byte(code>>8), jt, jf, byte(k), byte(k>>8), byte(k>>16), byte(k>>24))
	}
	insn(load, 0, 0, 0)
	for _, nr := range nrs {
		insn(jeq, 0, 1, uint32(nr))
		insn(ret, 0, 0, user)
	}
	insn(ret, 0, 0, allow)
	return b
}
