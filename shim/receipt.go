// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/version"
)

// receipt reads back what is in force for a launcher that stands under its filter, refuses it if that is not what
// the profile asks, and returns the record.
func (s *Service) receipt(c *container, l *launch, got inForce) (*audit.Event, error) {
	if got.status.Seccomp != unix.SECCOMP_MODE_FILTER {
		return nil, fmt.Errorf("receipt: process %d has seccomp mode %d, not a filter", got.pid, got.status.Seccomp)
	}
	if c.profile.NoNewPrivileges == profile.NNPTrue && !got.status.NoNewPrivs {
		return nil, fmt.Errorf("receipt: the profile asks for no_new_privs and process %d does not have it", got.pid)
	}
	if l.exec != "" {
		return &audit.Event{Time: time.Now(), Exec: l.exec, Kind: audit.KindExec, ExecStart: &audit.ExecStart{
			PID: uint32(got.pid), UID: got.status.UID, GID: got.status.GID, Terminal: l.terminal, SeccompMode: int(got.status.Seccomp),
			Filters: int(got.status.Filters), NoNewPrivs: got.status.NoNewPrivs, Argv: l.argv,
		}}, nil
	}
	limits, err := s.verify(c, got.limits)
	if err != nil {
		return nil, err
	}
	var lag time.Duration
	if c.profile.Durability == profile.DurabilityBatched {
		lag = flushInterval(c.profile)
	}
	return &audit.Event{Time: time.Now(), Kind: audit.KindStart, Receipt: &audit.Receipt{
		Version: version.String(), Kernel: got.kernel, Placement: string(s.Config.Supervisor.Placement),
		Delegate: s.Config.Delegate.RuntimeType, Image: c.image, PID: uint32(got.pid), SeccompMode: int(got.status.Seccomp),
		Filters: int(got.status.Filters), FilterDigest: c.program.Digest(), NoNewPrivs: got.status.NoNewPrivs,
		OnLoss: string(c.profile.OnLoss), Durability: string(c.profile.Durability), FlushInterval: lag, Limits: limits,
	}}, nil
}

// verify compares the limits with what was found in force, which is read from the node's own files where found is nil. It
// fails if one that is not best effort is not in force.
func (s *Service) verify(c *container, found []cgroups.Found) ([]audit.ReceiptLimit, error) {
	if found == nil {
		var err error
		if found, err = s.host.ReadBack(c.init.number(), c.limits); err != nil {
			return nil, fmt.Errorf("receipt: %w", err)
		}
	}
	found = cgroups.WithoutTasks(found, s.ownTasks())
	var limits []audit.ReceiptLimit
	var missing []error
	for _, check := range slices.Concat(cgroups.Compare(c.limits, found), cgroups.Absent(c.profile.Limits, c.limits)) {
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
