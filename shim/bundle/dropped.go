// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/guest/plan"
)

// rlimits are the names of POSIXRlimit.Type (runtime-spec, config.md) in the order of their numbers in
// <asm-generic/resource.h>, which amd64 and arm64 share.
var rlimits = []string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO",
	"RLIMIT_RTTIME",
}

// PlanDropped has the launcher of an exec restore what the delegate drops (delegate.Traits.ExecDrops): no_new_privs, resource
// limits and the OOM score of the process go into p. The process itself stays as it is. The edit comes after
// [NoNewPrivileges]. A resource limit that is unknown, there twice, or higher than its own maximum is refused.
func PlanDropped(p *plan.Plan) ProcessEdit {
	return func(process *Process) error {
		var err error
		if p.NoNewPrivs, err = process.NoNewPrivileges(); err != nil {
			return err
		}
		var limits []specs.POSIXRlimit
		if _, err := process.o.get("rlimits", &limits); err != nil {
			return err
		}
		p.Rlimits = nil
		for _, l := range limits {
			n := slices.Index(rlimits, l.Type)
			if n < 0 {
				return fmt.Errorf("process.rlimits: %q is no resource limit that the launcher can set", l.Type)
			}
			if slices.ContainsFunc(p.Rlimits, func(r plan.Rlimit) bool { return r.Resource == uint32(n) }) {
				return fmt.Errorf("process.rlimits: %s is there twice", l.Type)
			}
			if l.Soft > l.Hard {
				return fmt.Errorf("process.rlimits: %s: %d is above its maximum, %d", l.Type, l.Soft, l.Hard)
			}
			p.Rlimits = append(p.Rlimits, plan.Rlimit{Resource: uint32(n), Cur: l.Soft, Max: l.Hard})
		}
		var score int
		found, err := process.o.get("oomScoreAdj", &score)
		if err != nil {
			return err
		}
		if p.OOMScoreAdj = nil; !found {
			return nil
		}
		if score < -plan.MaxOOMAdj || score > plan.MaxOOMAdj {
			return fmt.Errorf("process.oomScoreAdj: %d is not within %d and %d", score, -plan.MaxOOMAdj, plan.MaxOOMAdj)
		}
		p.OOMScoreAdj = &score
		return nil
	}
}
