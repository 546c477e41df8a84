// SPDX-License-Identifier: Apache-2.0

// Package cgroup works on the cgroup of one container as the real agent does with its own manager of files, cgroup v2 only:
// RJ/cgroups/fs/mod.rs and the crate cgroups-rs, in Kata Containers 4.1.0 (RJ is src/agent/rustjail/src).
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Group is a cgroup, by the path of its directory.
type Group string

// Set puts the resources in force, in the agent's order, at Create as at Update (fs/mod.rs set and what it calls). What is
// nil or zero stays as it is, but for pids: see [spec.Resources]. A set of CPUs that cannot be had is only logged.
func (g Group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := g.setCPU(r.CPU); err != nil {
		return err
	}
	if err := g.setMemory(r.Memory); err != nil {
		return err
	}
	if r.Pids == nil {
		return nil
	}
	limit := "max"
	if r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		limit = strconv.FormatInt(*r.Pids.Limit, 10)
	}
	return g.write("pids.max", limit)
}

func (g Group) setCPU(c *specs.LinuxCPU) error {
	if c == nil {
		return nil
	}
	if c.Cpus != "" {
		if err := g.write("cpuset.cpus", c.Cpus); err != nil {
			log.Printf("write cpuset failed: %v", err)
		}
	}
	if c.Mems != "" {
		if err := g.write("cpuset.mems", c.Mems); err != nil {
			return err
		}
	}
	if c.Shares != nil {
		if err := g.write("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10)); err != nil {
			return err
		}
	}
	if c.Quota == nil && c.Period == nil {
		return nil
	}
	// Two values in one file: what was not sent is kept.
	quota, period, _ := strings.Cut(g.read("cpu.max"), " ")
	if c.Quota != nil {
		quota = strconv.FormatInt(*c.Quota, 10)
	}
	if c.Period != nil {
		period = strconv.FormatUint(*c.Period, 10)
	}
	return g.write("cpu.max", strings.TrimSpace(quota+" "+period))
}

// weight converts shares of cgroup v1, 2 to 262144, to a weight of 1 to 10000, linearly (convert_shares_to_v2_value).
func weight(shares uint64) uint64 {
	return min(1+(max(shares, 2)-2)*9999/262142, 10000)
}

// setMemory writes the limit to memory.max and the reservation to memory.low. Swap in OCI is memory and swap together. Where
// a limit comes with it, the agent writes the sum to memory.swap.max as it is; only without a limit would it subtract, and
// then it refuses (set_memory_resources, convert_memory_swap_to_v2_value).
func (g Group) setMemory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	if m.Swap != nil && m.Limit == nil {
		return errors.New("unable to set swap limit without memory limit")
	}
	if m.Limit != nil {
		if err := g.write("memory.max", strconv.FormatInt(*m.Limit, 10)); err != nil {
			return err
		}
	}
	if m.Swap != nil {
		if err := g.write("memory.swap.max", strconv.FormatInt(*m.Swap, 10)); err != nil {
			return err
		}
	}
	if m.Reservation != nil {
		return g.write("memory.low", strconv.FormatInt(*m.Reservation, 10))
	}
	return nil
}

// Freeze freezes or thaws all of the group.
func (g Group) Freeze(frozen bool) error {
	if frozen {
		return g.write("cgroup.freeze", "1")
	}
	return g.write("cgroup.freeze", "0")
}

// PIDs are the processes of the group itself; those of groups below it are not among them (fs/mod.rs get_pids).
func (g Group) PIDs() ([]int, error) {
	text, err := os.ReadFile(g.file("cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list the processes of a cgroup: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("list the processes of a cgroup: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Remove removes the group and those below it, which must have no processes. That there is none is no error.
func (g Group) Remove() error {
	entries, err := os.ReadDir(string(g))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := Group(g.file(e.Name())).Remove(); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(string(g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a cgroup: %w", err)
	}
	return nil
}

func (g Group) file(name string) string { return filepath.Join(string(g), name) }

func (g Group) write(name, value string) error {
	// os.WriteFile would make a file where the controller is missing.
	f, err := os.OpenFile(g.file(name), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", value, name, err)
	}
	return nil
}

// read is the text of a file without the last line's end, or "" where there is none.
func (g Group) read(name string) string {
	text, err := os.ReadFile(g.file(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
