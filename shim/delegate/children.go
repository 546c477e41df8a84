// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settlePatience is how long a delegate that is to be killed may take to finish what it has begun. containerd gives a
// delete action five seconds in all.
const settlePatience = 1500 * time.Millisecond

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
			if slices.Contains(listening(p.PID), socket) {
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
func children() []int { return childrenOf(os.Getpid()) }

// childrenOf returns the pids of a process's children.
func childrenOf(parent int) []int {
	var pids []int
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(parent) + "/task/*/children")
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
	all, _ := os.ReadDir("/proc")
	for _, d := range all {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// settle waits until the delegate has no runtime command under way. Killed in the middle of `runc create`, a delegate
// leaves a cgroup that its delete action knows nothing of.
func (i Instance) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for i.Process.Alive() && slices.ContainsFunc(childrenOf(i.Process.PID), isRuntimeCommand) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// isRuntimeCommand says that a process is an OCI runtime at work, as go-runc calls it: its options come first. The
// init process of a container that waits for its start has none.
func isRuntimeCommand(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := bytes.Split(data, []byte{0})
	return len(args) > 3 && string(args[1]) == "--root"
}

// listening returns the paths of the unix sockets that a process has open and listens on.
func listening(pid int) (paths []string) {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	// Num RefCount Protocol Flags Type St Inode Path; a listening socket has St 01.
	byInode := map[string]string{}
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) == 8 && f[5] == "01" {
			byInode["socket:["+f[6]+"]"] = f[7]
		}
	}
	fds, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && byInode[target] != "" {
			paths = append(paths, byInode[target])
		}
	}
	return paths
}
