// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/kata/agent/spec"
)

// How long a reader waits for output after the process has ended, which others may keep open (AG/rpc.rs do_read_stream).
const drain = 500 * time.Millisecond

// process is the first process of a container or an exec.
type process struct {
	id    string
	pid   int
	first bool

	// Our ends; stdin, stdout and stderr without a terminal, terminal with one.
	stdout, stderr, terminal *os.File

	mu    sync.Mutex
	stdin *os.File // nil when closed; protected by mu

	exited chan struct{}
	code   int // valid when exited is closed
}

// pipes makes the pipes of a process without a terminal, and gives its ends.
func (p *process) pipes() (child [3]*os.File, err error) {
	pair := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		r, w, err = os.Pipe()
		return r, w
	}
	child[0], p.stdin = pair()
	p.stdout, child[1] = pair()
	p.stderr, child[2] = pair()
	if err != nil {
		return child, fmt.Errorf("make pipes: %w", err)
	}
	return child, nil
}

// reap waits for the end of the process, whose parent is this one since runc has ended. A signal's number is 128 less than
// the code (AG/signal.rs).
func (p *process) reap() {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(p.pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		switch {
		case err != nil:
			p.code = 255
		case status.Signaled():
			p.code = 128 + int(status.Signal())
		default:
			p.code = status.ExitStatus()
		}
		break
	}
	close(p.exited)
	for _, f := range []*os.File{p.stdout, p.stderr, p.terminal} {
		if f != nil {
			_ = f.SetReadDeadline(time.Now().Add(drain)) // closed ones do not matter
		}
	}
}

// kill sends SIGKILL unless the process has been reaped, after which its number may be another's.
func (p *process) kill() {
	select {
	case <-p.exited:
	default:
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
}

// close closes all our ends.
func (p *process) close() {
	p.closeStdin()
	for _, f := range []*os.File{p.stdout, p.stderr, p.terminal} {
		if f != nil {
			_ = f.Close() // twice is no harm
		}
	}
}

func (p *process) closeStdin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdin != nil {
		_ = p.stdin.Close()
		p.stdin = nil
	}
}

// Exec starts a process in a container, which need not have been started (AG/rpc.rs do_exec_process; RJ/container.rs start).
func (s *Sandbox) Exec(req *grpc.ExecProcessRequest) error {
	c, err := s.container(req.ContainerId)
	if err != nil {
		return err
	}
	if req.Process == nil {
		return errors.New("Unable to parse process from ExecProcessRequest")
	}
	oci, err := spec.Exec(c.process, req.Process)
	if err != nil {
		return err
	}
	s.making.Lock()
	defer s.making.Unlock()
	c.mu.Lock()
	taken := c.processes[req.ExecId] != nil
	c.mu.Unlock()
	if taken {
		return fmt.Errorf("exec id %s already exists", req.ExecId) // RJ/container.rs:978
	}
	p, err := s.runcExec(c, req.ExecId, oci)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes[req.ExecId] = p
	return nil
}

// Wait blocks until a process has ended, or ctx has, and gives its exit code. The process is then forgotten, and what
// was not read of its output is lost; all who waited get the code (AG/rpc.rs do_wait_process).
func (s *Sandbox) Wait(ctx context.Context, id, exec string) (int, error) {
	c, p, err := s.process(id, exec)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.processes[p.id] == p {
		delete(c.processes, p.id)
	}
	return p.code, nil
}

// Signal sends a signal (AG/rpc.rs do_signal_process). SIGKILL without an exec's id goes to every process in the container's
// own cgroup, execs too, but not to those in cgroups below it. SIGTERM to a first process that neither handles, blocks nor
// ignores it becomes SIGKILL, because the kernel would drop it.
func (s *Sandbox) Signal(id, exec string, signal unix.Signal) error {
	if exec == "" && signal == unix.SIGKILL {
		return s.killAll(id)
	}
	_, p, err := s.process(id, exec)
	if err != nil {
		return err
	}
	if p.first && signal == unix.SIGTERM && !heeds(p.pid, signal) {
		signal = unix.SIGKILL
	}
	select {
	case <-p.exited:
		return nil // as ESRCH is none
	default:
	}
	if err := unix.Kill(p.pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal: %w", err)
	}
	return nil
}

func (s *Sandbox) killAll(id string) error {
	c, err := s.container(id)
	if err != nil {
		return err
	}
	// Frozen, so that nothing forks meanwhile; that it cannot be is only logged there too.
	_ = c.group.Freeze(true)
	defer func() { _ = c.group.Freeze(false) }()
	pids, err := c.group.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return nil
}

// heeds tells whether a process handles, blocks or ignores a signal (AG/rpc.rs is_signal_handled); of a process that is gone
// it tells no.
func heeds(pid int, signal unix.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	return heedsIn(string(text), signal)
}

func heedsIn(status string, signal unix.Signal) bool {
	if signal < 1 || signal > 64 {
		return false
	}
	for line := range strings.Lines(status) {
		name, mask, _ := strings.Cut(line, ":")
		if name != "SigBlk" && name != "SigIgn" && name != "SigCgt" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err == nil && bits>>(signal-1)&1 == 1 {
			return true
		}
	}
	return false
}
