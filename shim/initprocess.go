// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// initProcess is a container's first process, where it is a process of the node's kernel. Its methods may be called
// concurrently.
type initProcess struct {
	mu     sync.Mutex
	pid    int      // guarded by mu; 0 before the delegate told it
	pidfd  *os.File // guarded by mu; of the same process, nil when there is none
	mounts string   // guarded by mu; its mount namespace, as /proc/<pid>/ns/mnt names it
}

// found takes note of the process that the delegate made.
func (i *initProcess) found(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("init process %d: %w", pid, err)
	}
	mounts, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return errors.Join(fmt.Errorf("mount namespace of init process %d: %w", pid, err), unix.Close(fd))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pid, i.pidfd, i.mounts = pid, os.NewFile(uintptr(fd), "pidfd"), mounts
	return nil
}

// number is its pid, 0 where the node's kernel has no such process.
func (i *initProcess) number() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pid
}

// root returns the directory of procfs that shows its root file system. It fails if the process has left the mount
// namespace that it was started in, which is where delegates look for it.
func (i *initProcess) root() (string, error) {
	i.mu.Lock()
	pid, mounts := i.pid, i.mounts
	i.mu.Unlock()
	now, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return "", err
	}
	if now != mounts {
		return "", fmt.Errorf("process %d, the container's first, has left the mount namespace that it was started in", pid)
	}
	return fmt.Sprintf("/proc/%d/root", pid), nil
}

// kill kills it, and no later process with its pid. It fails where the node's kernel has no such process.
func (i *initProcess) kill() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid == 0 {
		return errors.New("it has no process of its own on this node")
	}
	if i.pidfd == nil {
		return nil
	}
	err := unix.PidfdSendSignal(int(i.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// close forgets the process. It may be called again.
func (i *initProcess) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pidfd != nil {
		i.pidfd.Close()
		i.pidfd = nil
	}
}
