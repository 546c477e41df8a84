// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// children are the processes that runc has left to us.
type children struct {
	// mu is held while runc makes a process whose number is not known yet.
	mu      sync.Mutex
	process map[int]*process // by number, until it has been reaped; protected by mu
}

func (c *children) reaped(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process[p.pid] == p { // and not another that has its number since
		delete(c.process, p.pid)
	}
}

// ReapOrphans reaps for ever what nobody waits for: when a container ends while runc makes a process in it, runc fails and leaves a
// zombie in the container's pid namespace, whose first process cannot end before that is reaped (pid_namespaces(7)). It is for the
// guest's first process, whose children all orphans become; the real agent reaps all its children (AG/signal.rs).
func (s *Sandbox) ReapOrphans() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		s.children.mu.Lock()
		for _, pid := range zombies() {
			if s.children.process[pid] == nil {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
		s.children.mu.Unlock()
	}
}

// zombies are our children that have ended in a pid namespace below ours. The others are commands of our own.
func zombies() (pids []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is well-formed
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread is gone
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && ended(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func ended(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	var zombie, below bool
	for line := range strings.Lines(string(text)) {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "State":
			zombie = strings.HasPrefix(strings.TrimSpace(value), "Z")
		case "NSpid":
			below = len(strings.Fields(value)) > 1
		}
	}
	return zombie && below
}
