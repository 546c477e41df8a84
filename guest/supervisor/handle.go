// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify"
)

// classExec is the audit class of the workload's first exec, which is an event whatever the profile audits.
const classExec = "exec"

// maxErrno is the kernel's MAX_ERRNO (<linux/err.h>), to which it bounds a filter's errno as well.
const maxErrno = 4095

// errNotKilled ends a session: the caller lives, though a rule kills it.
var errNotKilled = errors.New("a process that a rule kills cannot be killed")

// ruleLauncher is the rule id of the denial of a first exec that does not come from the leader.
const ruleLauncher = "metsuke/launcher"

// handle serves the request in s.req: decides, records, answers. notify.ErrVanished and errStopped mean that there
// was nobody left to answer, or that the answer is left to the closing of the listener; any other error ends the
// session.
func (s *Session) handle() error {
	req := &s.req
	decision := s.sup.opts.Program.Decide(&req.Data)
	call := s.dec.form(&req.Data)
	if len(s.ids.execs) > 0 {
		s.ids.calledAgain(req.PID)
	}

	first := false
	if !s.running {
		// Until the workload's first exec only the launcher's filtered thread can call: code of ours, which has to
		// reach that exec whatever the profile denies.
		ours := s.leader.PID <= 0 || int(req.PID) == s.leader.PID
		if !call.exec && ours {
			return s.proceed()
		}
		first = call.exec
		switch {
		case !ours:
			decision = seccomp.Decision{Action: seccomp.ActionDeny, Errno: uint16(unix.EPERM), RuleID: ruleLauncher, Class: classExec}
		case decision.Action < seccomp.ActionAudit || decision.Silent:
			decision = seccomp.Decision{Action: seccomp.ActionAudit, RuleID: classExec, Class: classExec}
		}
	}

	s.now = time.Now()
	var err error
	switch {
	case decision.Action >= seccomp.ActionDeny:
		err = s.deny(call, &decision)
	case decision.Action == seccomp.ActionAudit && !decision.Silent:
		err = s.audit(call, &decision, first)
	default:
		s.sup.counters.tracking.Add(1)
		if call.exec {
			s.ids.get(req.PID, s.now) // which process it is must be known before it becomes another program
		}
		s.ids.changes(req.PID, call)
		err = s.proceed()
	}
	return err
}

// audit records a call and lets it go on.
func (s *Session) audit(call *form, decision *seccomp.Decision, first bool) error {
	s.describe(call, decision, audit.VerdictAllowed)
	if !s.listener.Valid(s.req.ID) {
		return notify.ErrVanished
	}
	if s.sup.opts.Synced != nil && !first && s.putOff() {
		return nil
	}
	return s.recordAndProceed(call, first)
}

// recordAndProceed records the call that s.event is of, and lets it go on.
func (s *Session) recordAndProceed(call *form, first bool) error {
	switch err := s.record(); {
	case err == nil:
	case errors.Is(err, errLost):
		// Its process must not go on unwatched, and must not be told anything either: if the kill fails, the call
		// stays pending until the container is killed.
		s.kill()
		s.ids.drop(s.req.PID)
		return nil
	default:
		return err
	}
	s.sup.counters.audited.Add(1)
	s.ids.changes(s.req.PID, call)
	err := s.proceed()
	if first && err == nil {
		s.running = true
		close(s.started)
	}
	return err
}

// deny answers with an errno, or kills, and sees to it that the stream tells of it: at once, or in a folded record.
// It never waits for the sink.
func (s *Session) deny(call *form, decision *seccomp.Decision) error {
	verdict, errno := audit.VerdictDenied, min(decision.Errno, maxErrno)
	if decision.Action >= seccomp.ActionKill {
		verdict, errno = audit.VerdictKilled, uint16(unix.EPERM)
	}
	s.sup.counters.denied(decision.RuleID)
	fold, single := s.folds.hit(foldKey{decision.RuleID, s.req.Data.Arch, s.req.Data.Nr, errno, verdict}, s.now)
	if single || fold.count == 0 {
		s.describe(call, decision, verdict)
		if !s.listener.Valid(s.req.ID) {
			s.describeGone(call) // the attempt was made all the same
		}
		if verdict == audit.VerdictDenied && errno != 0 {
			s.syscall.Errno = errnoName(errno)
		}
	}
	if single && s.sup.appendNow(&s.event, 0) == nil {
		s.sup.counters.events.Add(1)
	} else {
		s.sup.counters.folded.Add(1)
		s.folds.add(fold, s.now, &s.syscall)
	}
	if verdict == audit.VerdictKilled {
		if s.killInit() {
			return nil
		}
		switch {
		case s.kill():
			s.sup.counters.killed.Add(1)
		case s.listener.Valid(s.req.ID):
			return errNotKilled
		}
	}
	return s.listener.Respond(s.req.ID, notify.Response{Error: -int32(errno)})
}

func (s *Session) proceed() error {
	return s.listener.Respond(s.req.ID, notify.Response{Continue: true})
}

// describe fills the event: who called, with what. What it says of the caller and of its memory is true only if the
// notification is still valid afterwards.
func (s *Session) describe(call *form, decision *seccomp.Decision, verdict audit.Verdict) {
	ev := &s.syscall
	*ev = audit.Syscall{TID: s.req.PID, PID: s.req.PID}
	if id := s.ids.get(s.req.PID, s.now); id != nil {
		ev.PID, ev.PPID, ev.UID, ev.GID, ev.Comm, ev.Exe = id.pid, id.ppid, id.uid, id.gid, id.comm, id.exe
	}
	ev.Syscall, ev.Nr, ev.Arch = call.name, s.req.Data.Nr, call.arch
	ev.Class, ev.RuleID, ev.Origin, ev.Verdict = decision.Class, decision.RuleID, decision.Origin, verdict
	s.dec.mem.cached = s.ids.memory(s.req.PID)
	ev.Args = s.dec.decode(call, &s.req.Data, s.req.PID)
	s.event.Time = s.now
}

// describeGone takes back all that may have been read from another process that got the caller's number.
func (s *Session) describeGone(call *form) {
	s.ids.drop(s.req.PID)
	ev := &s.syscall
	ev.PID, ev.PPID, ev.UID, ev.GID, ev.Comm, ev.Exe = s.req.PID, 0, 0, 0, "", ""
	ev.Args = s.dec.decode(call, &s.req.Data, 0)
}

// killInit has the caller killed from outside, if it is the first process of our own pid namespace. Its call must stay
// pending then.
func (s *Session) killInit() bool {
	id := s.ids.get(s.req.PID, s.now)
	if id == nil || id.pid != 1 || s.sup.opts.KillInit == nil || !s.listener.Valid(s.req.ID) {
		return false
	}
	s.sup.opts.KillInit()
	s.sup.counters.killed.Add(1)
	return true
}

// kill sends SIGKILL to the caller's process, by a descriptor that was opened while the caller was sure to exist, so
// never to another process that got its number. It tells whether the signal was sent.
func (s *Session) kill() bool {
	fd := s.ids.openPidfd(s.req.PID)
	if id := s.ids.get(s.req.PID, s.now); fd < 0 && id != nil {
		fd = s.ids.openPidfd(id.pid)
	}
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	return s.listener.Valid(s.req.ID) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

func errnoName(errno uint16) string {
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return "errno " + decimal(uint64(errno))
}
