// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"fmt"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// procFS is the /proc of our own pid namespace, where the ids of notified threads are looked up.
type procFS struct {
	fd         int
	threadFDs  bool          // pidfd_open has PIDFD_THREAD (Linux 6.9)
	maxWatched int64         // identities that may be kept, by the number of descriptors that we may have
	reads      atomic.Uint64 // identities read
	noReadv    atomic.Bool   // the kernel has no process_vm_readv (Kata's guest)
}

// spareFiles is how many descriptors are left for all else than identities.
const spareFiles = 256

func openProcFS() (*procFS, error) {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	p := &procFS{fd: fd, maxWatched: maxWatched}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		p.maxWatched = int64(min(maxWatched, (max(files.Cur, spareFiles)-spareFiles)/2))
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		p.close()
		return nil, fmt.Errorf("statfs /proc: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		p.close()
		return nil, fmt.Errorf("/proc is a file system of type %#x, no procfs", fs.Type)
	}
	var self [32]byte
	n, err := unix.Readlinkat(fd, "self", self[:])
	if err != nil || string(self[:n]) != strconv.Itoa(unix.Getpid()) {
		p.close()
		return nil, fmt.Errorf("/proc does not show our own process %d: mount the proc of our pid namespace there", unix.Getpid())
	}
	if self, err := unix.PidfdOpen(unix.Gettid(), unix.PIDFD_THREAD); err == nil {
		p.threadFDs = true
		_ = unix.Close(self)
	}
	return p, nil
}

func (p *procFS) close() { _ = unix.Close(p.fd) }

// statusSize is enough of /proc/PID/status: what we want comes before the groups, which have no bound.
const statusSize = 4096

// readIdentity reads who a thread is now into id, using buf. It returns false, and an unusable id, if that cannot be
// told. An exe that cannot be read (a kernel thread, a process that is about to end) is empty.
func (p *procFS) readIdentity(tid uint32, id *identity, buf []byte) bool {
	p.reads.Add(1)
	dir := strconv.FormatUint(uint64(tid), 10)
	fd, err := unix.Openat(p.fd, dir+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil {
		return false
	}
	*id = identity{tid: tid}
	if !parseStatus(buf[:n], id) {
		return false
	}
	if n, err = unix.Readlinkat(p.fd, dir+"/exe", buf); err == nil {
		id.exe = string(buf[:n])
	}
	return true
}

// openMemory opens a thread's memory for reading; -1 if that cannot be.
func (p *procFS) openMemory(tid uint32) int {
	fd, err := unix.Openat(p.fd, strconv.FormatUint(uint64(tid), 10)+"/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// parseStatus takes an identity out of the beginning of /proc/PID/status (proc_pid_status(5)). The kernel escapes line
// ends in the name, so a workload cannot forge a line.
func parseStatus(status []byte, id *identity) bool {
	found := 0
	for len(status) > 0 {
		line, rest, whole := bytes.Cut(status, []byte{'\n'})
		status = rest
		if !whole {
			break
		}
		key, value, _ := bytes.Cut(line, []byte{':', '\t'})
		ok := true
		switch string(key) {
		case "Name":
			id.comm = unescapeName(value)
		case "Tgid":
			id.pid, ok = number(value, 0)
		case "PPid":
			id.ppid, ok = number(value, 0)
		case "Uid":
			id.uid, ok = number(value, 1) // real, effective, saved, filesystem
		case "Gid":
			id.gid, ok = number(value, 1)
		default:
			continue
		}
		if !ok {
			return false
		}
		if found++; found == 5 {
			return id.pid != 0
		}
	}
	return false
}

// number parses the i-th number of a line.
func number(line []byte, i int) (uint32, bool) {
	for ; i > 0; i-- {
		_, line, _ = bytes.Cut(line, []byte{'\t'})
	}
	line, _, _ = bytes.Cut(line, []byte{'\t'})
	n, err := strconv.ParseUint(string(line), 10, 32)
	return uint32(n), err == nil
}

// unescapeName undoes what the kernel did to a task's name: line feed and backslash are escaped, nothing else.
func unescapeName(name []byte) string {
	if bytes.IndexByte(name, '\\') < 0 {
		return string(name)
	}
	name = bytes.ReplaceAll(name, []byte(`\\`), []byte{'\\', 0}) // a name cannot hold a zero byte
	name = bytes.ReplaceAll(name, []byte(`\n`), []byte{'\n'})
	return string(bytes.ReplaceAll(name, []byte{'\\', 0}, []byte{'\\'}))
}
