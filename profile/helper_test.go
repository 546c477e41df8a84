// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"os"
	"strings"
	"testing"

	"metsuke.dev/metsuke/seccomp"
)

// compiles checks that a resolved profile can become a filter on every architecture. One that is too long for
// the kernel is not this package's fault.
func compiles(t *testing.T, r *Resolved) {
	t.Helper()
	for _, a := range []seccomp.Arch{seccomp.ArchAMD64, seccomp.ArchARM64} {
		if _, err := seccomp.Compile(r.Policy(a, nil)); err != nil && !strings.Contains(err.Error(), "instructions") && !strings.Contains(err.Error(), "too l") {
			t.Errorf("%s on %s: %v", r.Name, a.Name(), err)
		}
	}
}

func goodSet(t *testing.T) *Set {
	t.Helper()
	s, err := Load(os.DirFS("testdata/good"), "/p")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
