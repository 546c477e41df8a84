// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/seccomp/notify"
)

func checkKernel(_ context.Context, s *survey) []Finding {
	k := s.Kernel
	switch {
	case s.onlyGuests():
		return []Finding{ok("Linux %s; containers have kernels of their own, which their receipts name", k.Release)}
	case errors.Is(k.NotifyError, notify.ErrTaken):
		return []Finding{skip("Linux %s cannot be asked: %v", k.Release, k.NotifyError)}
	case k.NotifyError != nil:
		return []Finding{fail(fmt.Sprintf("Linux %s gives no seccomp listener: %v", k.Release, k.NotifyError),
			"no container starts on runc: there is nothing that could supervise it",
			"run a kernel of 5.19 or later with CONFIG_SECCOMP_FILTER; inside a container, allow it the system call seccomp")}
	case !k.Notify.WaitKillable:
		return []Finding{fail(fmt.Sprintf("Linux %s lacks SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", k.Release),
			"no container starts on runc: a signal could take back a call that is recorded already",
			"upgrade the kernel to 5.19 or later")}
	case !k.Notify.SyncWakeUp:
		return []Finding{warn(fmt.Sprintf("Linux %s does not wake the supervisor on the caller's CPU", k.Release),
			"each audited call takes about ten times longer; nothing else",
			"upgrade the kernel to 6.6 or later where many calls are audited")}
	}
	return []Finding{ok("Linux %s: listener, killable wait, synchronous wake-up", k.Release)}
}

// usual are the limits that nearly every profile has.
var usual = []struct {
	name  string
	limit func() cgroups.Limits
}{
	{cgroups.Pids, func() cgroups.Limits { n := int64(1); return cgroups.Limits{Pids: &n} }},
	{cgroups.Memory, func() cgroups.Limits { n := int64(1 << 20); return cgroups.Limits{Memory: &n} }},
	{cgroups.CPU, func() cgroups.Limits { n := int64(1000); return cgroups.Limits{CPU: &n} }},
}

func checkCgroups(_ context.Context, s *survey) (found []Finding) {
	host, err := cgroups.Detect(s.Tree.Dir())
	if err != nil {
		return []Finding{fail(err.Error(), "no container starts: its limits cannot be read back",
			"mount cgroup v2 at /sys/fs/cgroup (systemd does), or start the kernel without the parameters that prevent it")}
	}
	if s.onlyGuests() {
		return []Finding{ok("cgroup v%d; limits are put in force in guests", host.Version)}
	}
	for _, u := range usual {
		if _, _, err := host.Resolve(u.limit()); err != nil {
			found = append(found, fail(err.Error(), "containers whose profile limits "+u.name+" do not start",
				"enable the controller: take cgroup_disable= out of the kernel's parameters, and on cgroup v2 look for a cgroup v1 hierarchy that holds it"))
		}
	}
	if len(found) > 0 {
		return found
	}
	if host.Version == cgroups.V1 {
		return []Finding{ok("cgroup v1 with pids, memory and cpu; memoryHigh needs cgroup v2")}
	}
	return []Finding{ok("cgroup v2 with pids, memory and cpu")}
}

// released is before any version of this program: a clock that is earlier was never set.
var released = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func checkClock(_ context.Context, s *survey) []Finding {
	k := s.Kernel
	const breaks = "records carry the wrong time: they cannot be set beside those of other nodes"
	const fix = "run an NTP client: systemctl enable --now systemd-timesyncd, or chronyd"
	switch {
	case k.Now.Before(released):
		return []Finding{fail("the clock says "+k.Now.UTC().Format(time.RFC3339)+", which is past", breaks, fix)}
	case k.ClockError != nil:
		return []Finding{skip("the kernel does not say whether the clock is synchronised: %v", k.ClockError)}
	case !k.Synchronised:
		return []Finding{warn("the clock is not synchronised", breaks, fix)}
	}
	return []Finding{ok("synchronised")}
}
