// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"io/fs"

	"metsuke.dev/metsuke/config"
	"metsuke.dev/metsuke/internal/diagnostic"
)

func checkConfig(_ context.Context, s *survey) (found []Finding) {
	for _, u := range s.setups {
		found = append(found, about(u.subject, judgeConfig(u))...)
	}
	return found
}

func judgeConfig(u *setup) (found []Finding) {
	faults := diagnostic.All(u.err)
	switch {
	case len(faults) > 0:
		for _, f := range faults {
			found = append(found, faultOf(f, noPod))
		}
		return found
	case errors.Is(u.err, fs.ErrNotExist):
		return []Finding{fail("there is no such file, and it is named",
			noPod,
			"write it (docs/config.example.toml has every field), or correct ConfigPath of the handler").at(u.path, 0)}
	case u.err != nil:
		return []Finding{fail(u.err.Error(), noPod, "make it a regular file that root can read").at(u.path, 0)}
	}
	return []Finding{ok("delegate %s, supervisors in the %s", u.config.Delegate.RuntimeType, place(u.config.Supervisor.Placement))}
}

func place(p config.Placement) string {
	if p == config.PlacementGuest {
		return "container"
	}
	return "shim"
}

// faultOf is the finding for a fault in a file that people write.
func faultOf(f *diagnostic.Error, breaks string) Finding {
	what, fix := f.Msg, f.Hint
	if f.Field != "" {
		what = f.Field + ": " + what
	}
	if fix == "" {
		fix = "correct it"
	}
	return fail(what, breaks, fix).at(f.File, f.Line)
}
