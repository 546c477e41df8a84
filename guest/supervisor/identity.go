// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reading who a caller is costs three times as much as all the rest of a call, so it is cached by thread id. A cached
// identity is used only if none of these can have made it untrue:
//
//   - The thread ended and its number went to another one, which the workload can force. A descriptor of the thread
//     is kept with the entry, and asked after the notification was received whether it still has its number: a
//     number is given away only after that.
//   - The caller changed itself: exec, set*id, capset and PR_SET_NAME are always notified and make the entry stale.
//   - Another thread of its process exec'd, which makes the leader another program. From that notification until
//     the exec'ing thread is gone or calls again, the leader's identity is read anew for each call.
//   - What no notification tells (a parent that ended, a name that a sibling wrote through /proc): an entry is
//     at most a second old.
//
// Before Linux 6.9 a descriptor of a thread that is not a leader cannot be had; those are read anew for each call.
const (
	identityTTL   = time.Second
	maxIdentities = 256 // entries of a session
	maxPidfds     = 512 // descriptors of all sessions of a container
	maxExecing    = 64  // execs of non-leaders under way; with more, no leader is cached
)

// identity is who a thread was when it was read. Effective ids, as they are what a call's permission rests on; in
// numbers of the supervisor's namespaces.
type identity struct {
	pid, tid, ppid, uid, gid uint32
	comm, exe                string
}

type identityEntry struct {
	identity
	pidfd int
	stale bool
	read  time.Time
}

// execing is a non-leader thread whose exec may be under way.
type execing struct{ pid, tid uint32 }

// identities is one session's cache. It belongs to the session's goroutine.
type identities struct {
	proc     *procFS
	budget   *atomic.Int64
	byTID    map[uint32]*identityEntry
	execs    []execing
	overflow bool     // execs did not fit: no leader is cached any more
	uncached identity // what get returned last, if it is not an entry's
	lastPID  uint32   // process of the thread that get was asked for last
	buf      [statusSize]byte
}

func newIdentities(proc *procFS, budget *atomic.Int64) identities {
	return identities{proc: proc, budget: budget, byTID: map[uint32]*identityEntry{}}
}

// get returns the identity of the thread that made the notification in hand, or nil if it cannot be read. The result
// is true only if the notification is valid afterwards (drop the entry if it is not), and is overwritten by the
// next get.
func (c *identities) get(tid uint32, now time.Time) *identity {
	c.lastPID = 0
	if tid == 0 {
		return nil
	}
	e := c.byTID[tid]
	if e != nil && !holdsNumber(e.pidfd) {
		c.drop(tid)
		e = nil
	}
	if e != nil && !e.stale && now.Sub(e.read) < identityTTL && !c.execUnderWay(&e.identity) {
		c.lastPID = e.pid
		return &e.identity
	}
	target := &c.uncached
	if e != nil {
		target = &e.identity
	}
	if !c.proc.readIdentity(tid, target, c.buf[:]) {
		c.drop(tid)
		return nil
	}
	c.lastPID = target.pid
	if e != nil {
		e.read, e.stale = now, c.execUnderWay(target)
		return target
	}
	if e = c.insert(target, now); e == nil {
		return target
	}
	return &e.identity
}

// insert makes an entry, if the thread's number can be watched.
func (c *identities) insert(id *identity, now time.Time) *identityEntry {
	if c.execUnderWay(id) {
		return nil
	}
	if c.budget.Load() >= maxPidfds && len(c.byTID) == 0 {
		return nil
	}
	if len(c.byTID) >= maxIdentities || c.budget.Load() >= maxPidfds {
		c.evict()
	}
	fd := c.openPidfd(id.tid)
	if fd < 0 {
		return nil
	}
	c.budget.Add(1)
	e := &identityEntry{identity: *id, pidfd: fd, read: now}
	c.byTID[id.tid] = e
	return e
}

// openPidfd returns a descriptor of a thread, or of its process if the kernel has no descriptors of threads and it is
// the leader; negative if there is none to be had. Signals sent to either reach the whole process if they kill.
func (c *identities) openPidfd(tid uint32) int {
	flags := 0
	if c.proc.threadFDs {
		flags = unix.PIDFD_THREAD
	}
	fd, err := unix.PidfdOpen(int(tid), flags) // close-on-exec by itself
	if err != nil {
		return -1
	}
	return fd
}

// evict drops an entry: of some at random a dead one, else the last that was looked at.
func (c *identities) evict() {
	tries := 4
	for tid, e := range c.byTID {
		if tries--; tries == 0 || !holdsNumber(e.pidfd) {
			c.drop(tid)
			return
		}
	}
}

// drop forgets a thread.
func (c *identities) drop(tid uint32) {
	e := c.byTID[tid]
	if e == nil {
		return
	}
	delete(c.byTID, tid)
	_ = unix.Close(e.pidfd)
	c.budget.Add(-1)
}

// changes is told of each call that is let go on, before it does.
func (c *identities) changes(tid uint32, call *form) {
	if !call.tracks {
		return
	}
	if e := c.byTID[tid]; e != nil {
		e.stale = true
	}
	pid := c.lastPID
	if !call.exec || pid == tid || pid == 0 {
		return
	}
	if e := c.byTID[pid]; e != nil {
		e.stale = true
	}
	if len(c.execs) >= maxExecing {
		c.overflow = true
		return
	}
	c.execs = append(c.execs, execing{pid, tid})
}

// calledAgain ends the exec of a thread that makes another call: it has failed. (Had it succeeded, the thread would
// have its leader's number now.)
func (c *identities) calledAgain(tid uint32) {
	for i := 0; i < len(c.execs); i++ {
		if c.execs[i].tid == tid {
			c.forgetExec(i)
			i--
		}
	}
}

// execUnderWay tells whether a leader may become another program without a notification of its own. A thread's
// number that went to another thread of the same process only makes this true for longer than needed.
func (c *identities) execUnderWay(id *identity) bool {
	if id.pid != id.tid || len(c.execs) == 0 && !c.overflow {
		return false
	}
	found := false
	for i := 0; i < len(c.execs); i++ {
		x := c.execs[i]
		if unix.Tgkill(int(x.pid), int(x.tid), 0) == unix.ESRCH {
			c.forgetExec(i)
			i--
		} else if x.pid == id.pid {
			found = true
		}
	}
	// An exec that did not fit may be of any process, and there is nothing to tell its end by.
	return found || c.overflow
}

func (c *identities) forgetExec(i int) {
	last := len(c.execs) - 1
	c.execs[i] = c.execs[last]
	c.execs = c.execs[:last]
}

func (c *identities) close() {
	for tid := range c.byTID {
		c.drop(tid)
	}
}

// holdsNumber tells whether the thread of a descriptor still has its number: until it is reaped, nobody else can.
func holdsNumber(pidfd int) bool {
	return unix.PidfdSendSignal(pidfd, 0, nil, 0) == nil
}
