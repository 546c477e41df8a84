// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OOMWatch waits for the kernel to kill a process of a group for its memory (RJ/cgroups/notifier.rs).
type OOMWatch struct {
	group   Group
	inotify *os.File
}

// WatchOOM begins to watch. The caller waits with [OOMWatch.Wait] and ends it with Close.
func (g Group) WatchOOM() (*OOMWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	w := &OOMWatch{group: g, inotify: os.NewFile(uintptr(fd), "inotify")}
	// A cgroup's end cannot be watched for; that it has no processes any more can.
	for _, name := range []string{"memory.events", "cgroup.events"} {
		if _, err := unix.InotifyAddWatch(fd, g.file(name), unix.IN_MODIFY); err != nil {
			_ = w.Close()
			return nil, fmt.Errorf("watch %s: %w", name, err)
		}
	}
	return w, nil
}

// Wait blocks until the kernel has killed a process of the group for its memory, and then tells true, once for a group, or
// until the group is empty, gone or the watch is closed, and then tells false.
//
// It asks after each change of either file what both say, so the last process's end does not hide that it was killed; the
// real agent looks only at the file that changed, in the order of the changes.
func (w *OOMWatch) Wait() bool {
	buffer := make([]byte, 4096)
	for {
		if counters(w.group.read("memory.events"))["oom_kill"] > 0 {
			return true
		}
		if populated, ok := counters(w.group.read("cgroup.events"))["populated"]; !ok || populated == 0 {
			return false
		}
		if _, err := w.inotify.Read(buffer); err != nil {
			return false
		}
	}
}

// Close ends the watch; a Wait under way tells false.
func (w *OOMWatch) Close() error { return w.inotify.Close() }
