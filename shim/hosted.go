// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
	"metsuke.dev/metsuke/shim/bundle"
)

// hosted is a supervision in this process, for containers whose kernel is the node's.
type hosted struct {
	helper  *helper
	meeting *rendezvous.Rendezvous
	watch   *supervisor.Supervisor
	init    *initProcess
}

// helper is the helper as a container gets it: its file on the host, whatever an upgrade puts at its path later.
type helper struct {
	file *os.File // O_PATH
	id   rendezvous.FileID
}

func openHelper(path string) (*helper, error) {
	file, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, fmt.Errorf("helper: %w", err)
	}
	h := &helper{file: file}
	if h.id, err = rendezvous.IdentifyFile(h.path()); err != nil {
		return nil, errors.Join(fmt.Errorf("helper: %w", err), file.Close())
	}
	return h, nil
}

// path leads this process, and no other, to the file.
func (h *helper) path() string { return fmt.Sprintf("/proc/self/fd/%d", h.file.Fd()) }

func (h *hosted) expect(exec, token string, p *plan.Plan) (expected, error) {
	pending, err := h.meeting.Expect(rendezvous.Spec{Token: token, Plan: p, Exec: exec != "", Helper: h.helper.id})
	if err != nil {
		return nil, err
	}
	return &hostedLaunch{host: h, exec: exec, pending: pending}, nil
}

func (h *hosted) created(pid int, init expected) error {
	if err := h.checkHelper(context.Background()); err != nil {
		return err
	}
	// Known this early, an impostor's connection is told from the launcher's at once.
	return init.started(context.Background(), pid)
}

// checkHelper: the delegate enters the mount namespace that the init process has by then, so it must be the one that the
// delegate made, and the helper must be where it was put.
func (h *hosted) checkHelper(context.Context) error {
	root, err := h.init.root()
	if err != nil {
		return fmt.Errorf("check the helper: %w", err)
	}
	return bundle.CheckMounted(root, h.helper.path())
}

func (h *hosted) canControl(context.Context, *specs.LinuxResources) error { return nil }

func (h *hosted) control(context.Context, *specs.LinuxResources) ([]cgroups.Found, error) {
	return nil, nil
}

func (h *hosted) killed() uint64 { return h.watch.Stats().Killed }

func (h *hosted) stalls() uint64 { return h.watch.Stats().Stalls }

func (h *hosted) tasks() uint64 { return 0 }

func (h *hosted) exited(uint32) {}

func (h *hosted) drain() {
	deadline := time.Now().Add(drainGrace)
	for h.watch.Stats().Sessions > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *hosted) close() error {
	return errors.Join(h.meeting.Close(), h.watch.Close(), h.helper.file.Close())
}

// hostedLaunch is a launch that comes to our own rendezvous.
type hostedLaunch struct {
	host    *hosted
	exec    string
	pending *rendezvous.Pending
}

func (l *hostedLaunch) started(_ context.Context, pid int) error { return l.pending.Confirm(pid) }

func (l *hostedLaunch) cancel() { l.pending.Cancel() }

func (l *hostedLaunch) await(ctx context.Context) (standing, error) {
	launch, err := l.pending.Await(ctx)
	if err != nil {
		return nil, err
	}
	status, err := rendezvous.ReadStatus(launch.PID)
	if err != nil {
		launch.Close()
		return nil, errors.Join(fmt.Errorf("receipt: %w", err), launch.Listener.Close())
	}
	got := inForce{pid: launch.PID, status: status, kernel: kernelRelease()}
	return &hostedStanding{host: l.host, exec: l.exec, launch: launch, got: got}, nil
}

// hostedStanding is a launcher whose listener we hold.
type hostedStanding struct {
	host   *hosted
	exec   string
	launch *rendezvous.Launch
	got    inForce
}

func (s *hostedStanding) found() inForce { return s.got }

// arm hands the listener to the supervisor, which takes over a descriptor of its own, before it lets the launcher go.
func (s *hostedStanding) arm(ctx context.Context) error {
	fd, err := duplicate(s.launch.Listener)
	if err != nil {
		return fmt.Errorf("listener of process %d: %w", s.launch.PID, err)
	}
	if _, err := s.host.watch.Attach(fd, supervisor.Leader{PID: s.launch.PID}, s.exec); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	s.launch.Listener.Close()
	return s.launch.Arm(ctx)
}

func (s *hostedStanding) abandon() {
	s.launch.Listener.Close() // armed: closed already
	s.launch.Close()
}

// duplicate returns a second descriptor of f, close-on-exec, that os.File does not own.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, err
	}
	return fd, dupErr
}
