// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// An OOMCounter counts the OOM kills in one cgroup, on cgroup v2 with those below it: oom_kill of memory.events, or of v1's
// memory.oom_control (Linux 4.13).
type OOMCounter struct {
	host *Host
	file string
}

// OOMCounter returns the counter of the cgroup that the process pid is in. It counts on when the process has ended, until
// the cgroup is removed.
func (h *Host) OOMCounter(pid int) (*OOMCounter, error) {
	m, ok := h.controller("memory")
	if !ok {
		return nil, errors.New("the memory controller is not mounted")
	}
	file := "memory.events"
	if h.Version == V1 {
		file = "memory.oom_control"
	}
	text, err := h.read(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("find the OOM counter of process %d: %w", pid, err)
	}
	cgroup, err := h.cgroupOf(text, "memory")
	if err != nil {
		return nil, fmt.Errorf("find the OOM counter of process %d: %w", pid, err)
	}
	dir, err := m.dir(cgroup)
	if err != nil {
		return nil, fmt.Errorf("find the OOM counter of process %d: %w", pid, err)
	}
	return &OOMCounter{host: h, file: filepath.Join(dir, file)}, nil
}

// Kills returns how many processes the kernel has killed for lack of memory: zero if that is not known, which is always so
// of a nil counter.
func (o *OOMCounter) Kills() uint64 {
	if o == nil {
		return 0
	}
	text, err := o.host.read(o.file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(count), 10, 64)
			return n
		}
	}
	return 0
}
