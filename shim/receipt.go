// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/version"
)

// inForce is what the kernel says of a process that stands under its filter: lines of /proc/<pid>/status
// (proc_pid_status(5); Seccomp_filters since Linux 5.9).
type inForce struct {
	seccomp, filters int
	noNewPrivs       bool
	uid, gid         uint32
}

// readInForce reads them.
func readInForce(pid int) (inForce, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return inForce{}, fmt.Errorf("receipt: %w", err)
	}
	defer f.Close()
	var got inForce
	seen := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		first, _, _ := strings.Cut(strings.TrimSpace(value), "\t")
		var n int
		switch name {
		case "Seccomp", "Seccomp_filters", "NoNewPrivs", "Uid", "Gid":
			if n, err = strconv.Atoi(first); err != nil {
				return inForce{}, fmt.Errorf("receipt: %s of process %d: %w", name, pid, err)
			}
			seen++
		}
		switch name {
		case "Seccomp":
			got.seccomp = n
		case "Seccomp_filters":
			got.filters = n
		case "NoNewPrivs":
			got.noNewPrivs = n == 1
		case "Uid":
			got.uid = uint32(n)
		case "Gid":
			got.gid = uint32(n)
		}
	}
	if err := lines.Err(); err != nil {
		return inForce{}, fmt.Errorf("receipt: status of process %d: %w", pid, err)
	}
	if seen < 4 {
		return inForce{}, fmt.Errorf("receipt: status of process %d says too little of seccomp", pid)
	}
	return got, nil
}

// receipt reads back what is in force for a launcher that stands under its filter, refuses it if that is not what
// the profile asks, and returns the record.
func (s *Service) receipt(c *container, l *launch, pid int) (*audit.Event, error) {
	got, err := readInForce(pid)
	if err != nil {
		return nil, err
	}
	if got.seccomp != unix.SECCOMP_MODE_FILTER {
		return nil, fmt.Errorf("receipt: process %d has seccomp mode %d, not a filter", pid, got.seccomp)
	}
	if c.profile.NoNewPrivileges == profile.NNPTrue && !got.noNewPrivs {
		return nil, fmt.Errorf("receipt: the profile asks for no_new_privs and process %d does not have it", pid)
	}
	if l.exec != "" {
		return &audit.Event{Time: time.Now(), Exec: l.exec, Kind: audit.KindExec, ExecStart: &audit.ExecStart{
			PID: uint32(pid), UID: got.uid, GID: got.gid, Terminal: l.terminal, SeccompMode: got.seccomp,
			Filters: got.filters, NoNewPrivs: got.noNewPrivs, Argv: l.argv,
		}}, nil
	}
	limits, err := s.verify(c, pid)
	if err != nil {
		return nil, err
	}
	return &audit.Event{Time: time.Now(), Kind: audit.KindStart, Receipt: &audit.Receipt{
		Version: version.String(), Kernel: kernelRelease(), Placement: string(s.Config.Supervisor.Placement),
		Delegate: s.Config.Delegate.RuntimeType, Image: c.image, PID: uint32(pid), SeccompMode: got.seccomp,
		Filters: got.filters, FilterDigest: c.program.Digest(), NoNewPrivs: got.noNewPrivs,
		OnLoss: string(c.profile.OnLoss), Limits: limits,
	}}, nil
}

// verify reads the limits back. It fails if one that is not best effort is not in force.
func (s *Service) verify(c *container, pid int) ([]audit.ReceiptLimit, error) {
	found, err := s.host.ReadBack(pid, c.limits)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	var limits []audit.ReceiptLimit
	var missing []error
	for _, check := range cgroups.Compare(c.limits, found) {
		name := strings.TrimSpace(check.Resource + " " + check.Key)
		limits = append(limits, audit.ReceiptLimit{
			Name: name, Asked: check.Asked, Found: check.Found, BestEffort: check.BestEffort,
		})
		if !check.OK && !check.BestEffort {
			missing = append(missing, fmt.Errorf("limit %s: asked %s, found %q %s", name, check.Asked, check.Found, check.Reason))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("receipt: what the kernel has in force is not what the profile asks: %w", errors.Join(missing...))
	}
	return limits[:min(len(limits), audit.MaxLimits)], nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
