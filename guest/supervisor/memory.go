// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"

	"golang.org/x/sys/unix"
)

// pageSize is the smallest page there is: a read is split at its multiples, so that an unreadable page costs no byte
// of the readable one before it.
const pageSize = 4096

// memory reads the memory of notified threads. It belongs to one session. A read can block for as long as the
// workload likes (a page that it serves itself by userfaultfd(2), a file of its FUSE): only its own session waits.
type memory struct {
	proc   *procFS
	local  [1]unix.Iovec
	remote [2]unix.RemoteIovec
	cached int // descriptor of the caller's memory, if the identity cache has one; -1: none
	own    int // the same, opened for this notification where process_vm_readv cannot be used; -1: none
}

// read fills dst from a thread's memory at addr and returns how many bytes it got, from the beginning; 0 if addr is
// not readable. The bytes are the thread's only if the notification is valid afterwards.
func (m *memory) read(tid uint32, addr uint64, dst []byte) int {
	if tid == 0 || addr == 0 || len(dst) == 0 || addr+uint64(len(dst)) < addr {
		return 0
	}
	if m.cached >= 0 { // a quarter faster than process_vm_readv, which asks for permission anew
		if n := preadAt(m.cached, addr, dst); n > 0 {
			return n
		}
	}
	if m.proc.noReadv.Load() {
		return m.readFile(tid, addr, dst)
	}
	m.local[0].Base = &dst[0]
	m.local[0].SetLen(len(dst))
	head := int(min(pageSize-addr%pageSize, uint64(len(dst))))
	m.remote[0] = unix.RemoteIovec{Base: uintptr(addr), Len: head}
	m.remote[1] = unix.RemoteIovec{Base: uintptr(addr) + uintptr(head), Len: len(dst) - head}
	parts := m.remote[:1]
	if head < len(dst) {
		parts = m.remote[:2]
	}
	n, err := unix.ProcessVMReadv(int(tid), m.local[:], parts, 0)
	switch {
	case err == nil:
		return n
	case errors.Is(err, unix.ENOSYS):
		m.proc.noReadv.Store(true)
		return m.readFile(tid, addr, dst)
	case errors.Is(err, unix.EPERM):
		return m.readFile(tid, addr, dst)
	}
	return 0
}

// readFile reads through /proc/PID/mem. The descriptor lives for one notification: an exec would leave it with the
// memory of a program that is gone, or, after a vfork, with the parent's.
func (m *memory) readFile(tid uint32, addr uint64, dst []byte) int {
	if m.own < 0 {
		m.own = m.proc.openMemory(tid)
	}
	return preadAt(m.own, addr, dst)
}

// preadAt stops at the first unreadable page.
func preadAt(fd int, addr uint64, dst []byte) int {
	if fd < 0 || addr+uint64(len(dst)) > 1<<63-1 {
		return 0
	}
	n, err := unix.Pread(fd, dst, int64(addr))
	if err != nil {
		return 0
	}
	return n
}

// close ends the reads for one notification.
func (m *memory) close() {
	if m.own >= 0 {
		_ = unix.Close(m.own)
	}
	m.own, m.cached = -1, -1
}
