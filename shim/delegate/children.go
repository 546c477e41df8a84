// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// becomeSubreaper makes what a delegate's start process leaves behind our child (PR_SET_CHILD_SUBREAPER, prctl(2)),
// which is how the delegate's pid is known for sure: the peer of its socket is the start process that made it.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a child subreaper: %w", err)
	}
	return nil
}

// adopted returns the process that serves socket among our children that are not in known: the delegate that the
// start process left to us. ok is false if there is none.
func adopted(known map[int]bool, socket string) (Process, bool) {
	var found []Process
	for _, pid := range children() {
		if known[pid] {
			continue
		}
		if p, err := Identify(pid); err == nil && p.Alive() {
			found = append(found, p)
		}
	}
	if len(found) > 1 {
		for _, p := range found {
			if holdsSocket(p.PID, socket) {
				return p, true
			}
		}
		return Process{}, false
	}
	if len(found) == 1 {
		return found[0], true
	}
	return Process{}, false
}

// children returns the pids of our children.
func children() []int {
	var pids []int
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range lists {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if len(lists) > 0 {
		return pids
	}
	// A kernel without CONFIG_PROC_CHILDREN.
	self := os.Getpid()
	all, _ := os.ReadDir("/proc")
	for _, d := range all {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.ppid == self {
			pids = append(pids, pid)
		}
	}
	return pids
}

// holdsSocket says that a process has the listening unix socket at path open.
func holdsSocket(pid int, path string) bool {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	// Num RefCount Protocol Flags Type St Inode Path; a listening socket has St 01.
	inodes := map[string]bool{}
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) == 8 && f[7] == path && f[5] == "01" {
			inodes["socket:["+f[6]+"]"] = true
		}
	}
	fds, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			return true
		}
	}
	return false
}
