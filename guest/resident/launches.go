// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/guest/supervisor"
)

var (
	errCanceled = errors.New("the host gave the launch up")
	errFull     = fmt.Errorf("this container has %d process trees under supervision, the most that there can be", channel.MaxSessions)
)

// launches are those that the host expects and that have not ended, by their number; and what they take.
type launches struct {
	mu   sync.Mutex
	byID map[uint64]*launch // guarded by mu
	busy int                // launches, and sessions of those that are over; guarded by mu
	init int                // pid of the container's own process, once it was found; guarded by mu
}

// launch is what one still waits for.
type launch struct {
	ctx    context.Context
	give   context.CancelCauseFunc
	once   sync.Once
	toArm  chan struct{}
	ended  sync.Once // its end was told
	exec   string
	number uint64
}

// begin takes a place; nil if there is none.
func (l *launches) begin(id uint64, exec string) *launch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy >= channel.MaxSessions {
		return nil
	}
	l.busy++
	n := &launch{toArm: make(chan struct{}), exec: exec, number: id}
	n.ctx, n.give = context.WithCancelCause(context.Background())
	if l.byID == nil {
		l.byID = map[uint64]*launch{}
	}
	l.byID[id] = n
	return n
}

// over forgets a launch, whose session may go on.
func (l *launches) over(n *launch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byID, n.number)
	n.give(nil)
}

// free gives the place back.
func (l *launches) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
}

// get returns a launch; nil if it is over, which the host may not know yet.
func (l *launches) get(id uint64) *launch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

func (l *launches) cancel(id uint64) {
	if n := l.get(id); n != nil {
		n.give(errCanceled)
	}
}

func (l *launches) arm(id uint64) {
	if n := l.get(id); n != nil {
		n.once.Do(func() { close(n.toArm) })
	}
}

// firstProcess returns the pid of the container's own process; 0 if it was not found yet.
func (l *launches) firstProcess() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.init
}

func (l *launches) setFirstProcess(pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init = pid
}

// expect begins a launch.
func (r *resident) expect(m channel.Expect) {
	n := r.launches.begin(m.ID, m.Exec)
	if n == nil {
		r.tell(failed(m.ID, errFull))
		return
	}
	pending, err := r.await(&m, n)
	go func() {
		if err == nil {
			err = r.launch(n, pending)
		}
		if err != nil {
			r.launches.over(n)
			r.launches.free()
			r.tellFailed(n, err)
		}
	}()
}

// tellFailed tells the end of a launch, once.
func (r *resident) tellFailed(n *launch, err error) {
	n.ended.Do(func() { r.tell(failed(n.number, err)) })
}

// await registers the launch at the socket.
func (r *resident) await(m *channel.Expect, n *launch) (*rendezvous.Pending, error) {
	t, size, err := plan.ParseHeader(m.Plan)
	if err == nil && (t != plan.TypePlan || size != len(m.Plan)-plan.HeaderSize) {
		err = plan.ErrType
	}
	if err != nil {
		return nil, err
	}
	p, err := plan.DecodePlan(m.Plan[plan.HeaderSize:])
	if err != nil {
		return nil, err
	}
	return r.meet.Expect(rendezvous.Spec{Token: m.Token, Plan: p, Exec: m.Exec != "", Failed: func(e *rendezvous.ExecError) { r.tellFailed(n, e) }})
}

// launch brings a launcher to its execve, and says so. An error means that the workload has not run, nor has a session.
func (r *resident) launch(n *launch, pending *rendezvous.Pending) error {
	if n.exec != "" {
		// A workload that may mount could have put something over the helper.
		if err := r.checkHelper(); err != nil {
			pending.Cancel()
			return err
		}
	}
	launcher, err := pending.Await(n.ctx)
	if err != nil {
		return err
	}
	session, err := r.attach(n, launcher)
	if err != nil {
		launcher.Close()
		return err
	}
	err = launcher.Arm(n.ctx)
	r.launches.over(n)
	if err != nil {
		r.tellFailed(n, err)
	} else {
		r.tell(channel.Armed{ID: n.number})
	}
	launcher.Close()
	go func() { // small, as it stays for the session's life
		<-session.Done()
		r.launches.free()
	}()
	return nil
}

// attach says what was found, waits for Arm, and has the listener served. It closes the launcher's copy of it.
func (r *resident) attach(n *launch, launcher *rendezvous.Launch) (*supervisor.Session, error) {
	defer launcher.Listener.Close()
	status, err := rendezvous.ReadStatus(launcher.PID)
	if err != nil {
		return nil, err
	}
	if n.exec == "" {
		r.launches.setFirstProcess(launcher.PID)
	}
	r.tell(channel.Found{
		ID: n.number, PID: uint32(launcher.PID), UID: status.UID, GID: status.GID, Seccomp: status.Seccomp,
		Filters: status.Filters, NoNewPrivs: status.NoNewPrivs, Values: r.readCgroup(),
	})
	select {
	case <-n.toArm:
	case <-n.ctx.Done():
		return nil, context.Cause(n.ctx)
	}
	fd, err := unix.FcntlInt(launcher.Listener.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listener of process %d: %w", launcher.PID, err)
	}
	session, err := r.sup.Attach(fd, supervisor.Leader{PID: launcher.PID}, n.exec)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return session, nil
}

// checkHelper verifies that a process which the delegate adds to the container would find the helper: in our own mount
// namespace, and in that of the container's first process, which is where some delegates start it.
func (r *resident) checkHelper() error {
	roots := []string{"/"}
	if pid := r.launches.firstProcess(); pid != 0 {
		roots = append(roots, fmt.Sprintf("/proc/%d/root", pid))
	}
	for _, root := range roots {
		if err := r.dir.Check(root, exe, dirMode); err != nil {
			return err
		}
	}
	return nil
}

// failed words the end of a launch.
func failed(id uint64, err error) channel.Failed {
	if told, ok := errors.AsType[*rendezvous.ExecError](err); ok {
		return channel.Failed{ID: id, Stage: uint8(told.Stage), Errno: uint32(told.Errno), Arg: told.Arg}
	}
	return channel.Failed{ID: id, Text: err.Error()}
}
