// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile"
	"metsuke.dev/metsuke/seccomp"
)

// compare sets a receipt beside what the profile promises, and returns each difference.
func (c *canary) compare(got *record.Record, p *profile.Resolved) (different []error, err error) {
	differ := func(what string, have, want any) {
		if have != want {
			different = append(different, fmt.Errorf("%s is %v, not %v", what, have, want))
		}
	}
	program, err := seccomp.Compile(p.Policy(seccomp.NativeArch(), nil))
	if err != nil {
		return nil, err
	}
	r, cfg := got.Event.Receipt, c.handler.setup.config
	differ("profile", got.Identity.Profile, p.Name)
	differ("profile's digest", got.Identity.ProfileDigest, p.Digest)
	differ("seccomp mode", r.SeccompMode, unix.SECCOMP_MODE_FILTER)
	differ("filter's digest", r.FilterDigest, program.Digest())
	if p.NoNewPrivileges == profile.NNPTrue {
		differ("no_new_privs", r.NoNewPrivs, true)
	}
	differ("onLoss", r.OnLoss, string(p.OnLoss))
	differ("placement", r.Placement, string(cfg.Supervisor.Placement))
	differ("delegate", r.Delegate, cfg.Delegate.RuntimeType)
	limits, err := c.compareLimits(r.Limits, p.Limits)
	return append(different, limits...), err
}

// compareLimits looks for each limit that the node can enforce among those of the receipt. That none is above what was asked, the shim has
// seen to before it wrote the receipt.
func (c *canary) compareLimits(got []audit.ReceiptLimit, promised cgroups.Limits) (different []error, err error) {
	resolved := promised
	if t := c.handler.setup.traits(); t.Sandboxed {
		resolved, _, err = cgroups.ResolveForGuest(promised, t.LimitsForeign)
	} else {
		var host *cgroups.Host
		if host, err = cgroups.Detect(c.Tree.Dir()); err == nil {
			resolved, _, err = host.Resolve(promised)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, want := range cgroups.Compare(resolved, nil) {
		name := strings.TrimSpace(want.Resource + " " + want.Key)
		switch at := limitAt(got, name); {
		case at < 0:
			different = append(different, fmt.Errorf("limit %s is missing", name))
		case got[at].Asked != want.Asked:
			different = append(different, fmt.Errorf("limit %s is %s, not %s", name, got[at].Asked, want.Asked))
		case got[at].Found == "" && !want.BestEffort:
			different = append(different, fmt.Errorf("limit %s is not in force", name))
		}
	}
	return different, nil
}

func limitAt(limits []audit.ReceiptLimit, name string) int {
	for i, l := range limits {
		if l.Name == name {
			return i
		}
	}
	return -1
}
