// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reading who a caller is costs three times as much as all the rest of a call, so it is cached by thread id. A cached
// identity is used only if none of these can have made it untrue:
//
//   - The thread ended and its number went to another one, which the workload can force. A descriptor of the thread
//     is kept with the entry; after a notification was received they are all asked for threads that have ended, whose
//     entries go. The kernel wakes a descriptor before it gives the number away, so what is left is the caller's.
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
	maxWatched    = 512 // entries of all sessions of a container, each with up to two descriptors; a low RLIMIT_NOFILE lowers it
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
	mem   int // /proc/PID/mem; -1: not open
	stale bool
	used  bool // more than once
	read  time.Time
}

// execing is a non-leader thread whose exec may be under way.
type execing struct{ pid, tid uint32 }

// identities is one session's cache. It belongs to the session's goroutine.
type identities struct {
	proc     *procFS
	budget   *atomic.Int64
	byTID    map[uint32]*identityEntry
	watch    int // epoll descriptor of all pidfds; -1: not made yet
	execs    []execing
	overflow bool     // execs did not fit: no leader is cached any more
	uncached identity // what get returned last, if it is not an entry's
	lastPID  uint32   // process of the thread that get was asked for last
	buf      [statusSize]byte
}

func newIdentities(proc *procFS, budget *atomic.Int64) identities {
	return identities{proc: proc, budget: budget, byTID: map[uint32]*identityEntry{}, watch: -1}
}

// get returns the identity of the thread that made the notification in hand, or nil if it cannot be read. The result
// is true only if the notification is valid afterwards; if it is not, or if its answer finds nobody, the entry must be
// dropped, which the session does. It is overwritten by the next get.
func (c *identities) get(tid uint32, now time.Time) *identity {
	c.lastPID = 0
	if tid == 0 {
		return nil
	}
	c.bury()
	e := c.byTID[tid]
	if e != nil && !e.stale && now.Sub(e.read) < identityTTL && !c.execUnderWay(&e.identity) {
		c.lastPID, e.used = e.pid, true
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
		e.read, e.stale, e.used = now, c.execUnderWay(target), true
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
	if c.budget.Load() >= c.proc.maxWatched && len(c.byTID) == 0 {
		return nil
	}
	if len(c.byTID) >= maxIdentities || c.budget.Load() >= c.proc.maxWatched {
		c.evict()
	}
	if c.watch < 0 {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return nil
		}
		c.watch = fd
	}
	fd := c.openPidfd(id.tid)
	if fd < 0 {
		return nil
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(id.tid)}
	if unix.EpollCtl(c.watch, unix.EPOLL_CTL_ADD, fd, &event) != nil {
		_ = unix.Close(fd)
		return nil
	}
	c.budget.Add(1)
	e := &identityEntry{identity: *id, pidfd: fd, mem: -1, read: now}
	c.byTID[id.tid] = e
	return e
}

// bury drops the entries of threads that have ended.
func (c *identities) bury() {
	for len(c.byTID) > 0 {
		var events [16]unix.EpollEvent
		n := epollNow(c.watch, events[:])
		for i := range n {
			c.drop(uint32(events[i].Fd))
		}
		if n < len(events) {
			return
		}
	}
}

// memory returns a descriptor of the memory of the thread that get was asked for last, or -1. It is opened for the
// second call of a thread: many make only one. It must not be used for another thread, and is good for one call.
func (c *identities) memory(tid uint32) int {
	e := c.byTID[tid]
	if e == nil || e.stale || !e.used {
		return -1
	}
	if e.mem < 0 {
		e.mem = c.proc.openMemory(tid)
	}
	return e.mem
}

// changed makes an entry stale. Its memory may be another soon: that of the new program.
func (e *identityEntry) changed() {
	e.stale = true
	e.closeMemory()
}

func (e *identityEntry) closeMemory() {
	if e.mem >= 0 {
		_ = unix.Close(e.mem)
		e.mem = -1
	}
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

// evict drops an entry at random.
func (c *identities) evict() {
	for tid := range c.byTID {
		c.drop(tid)
		return
	}
}

// drop forgets a thread.
func (c *identities) drop(tid uint32) {
	e := c.byTID[tid]
	if e == nil {
		return
	}
	delete(c.byTID, tid)
	e.closeMemory()
	// Not left to close(2): a child of ours between fork and exec may hold a copy, and keep the registration.
	_ = unix.EpollCtl(c.watch, unix.EPOLL_CTL_DEL, e.pidfd, nil)
	_ = unix.Close(e.pidfd)
	c.budget.Add(-1)
}

// changes is told of each call that is let go on, before it does.
func (c *identities) changes(tid uint32, call *form) {
	if !call.tracks {
		return
	}
	if e := c.byTID[tid]; e != nil {
		e.changed()
	}
	pid := c.lastPID
	if !call.exec || pid == tid || pid == 0 {
		return
	}
	if e := c.byTID[pid]; e != nil {
		e.changed()
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
		if errors.Is(unix.Tgkill(int(x.pid), int(x.tid), 0), unix.ESRCH) {
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
	if c.watch >= 0 {
		_ = unix.Close(c.watch)
		c.watch = -1
	}
}
