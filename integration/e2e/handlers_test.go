// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"

	"metsuke.dev/metsuke/integration/stand"
)

// The handlers of every stand of this package, beside the delegate alone.
const (
	baseline    = stand.HandlerBaseline
	passthrough = stand.HandlerPassthrough
	tuned       = "metsuke-tuned"   // the profiles below
	failing     = "metsuke-failing" // a stream on a file system that a test fills
)

func handlers() []stand.Handler {
	all := append(stand.StandardHandlers(),
		stand.Handler{Name: tuned, Profiles: map[string]string{"profiles.yaml": tunedProfiles}},
		stand.Handler{Name: failing, Profiles: map[string]string{"profiles.yaml": failingProfiles}},
		stand.Handler{Name: budgeted, Profiles: map[string]string{"profiles.yaml": failingProfiles}, Audit: budget},
		stand.Handler{Name: attacked, Profiles: map[string]string{"profiles.yaml": attackedProfiles}},
	)
	if delegate == stand.Kata {
		all = append(all, stand.Handler{Name: permissive, Delegate: fmt.Sprintf("allowed_annotations = [%q]", guestPolicy)})
	}
	for i := range all {
		all[i].Placement = placement
	}
	return all
}

// profile gives pods of a namespace a profile of the test's own, which extends baseline, until the test ends.
func (h *harness) profile(handler, namespace, spec string) {
	h.t.Helper()
	file := filepath.Join(h.ProfilesDir(handler), namespace+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, ownProfile, namespace, spec), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			h.t.Error(err)
		}
	})
}

const ownProfile = `
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: %[1]s}
spec:
  extends: [baseline]
  %[2]s
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: %[1]s}
spec: {namespaces: [%[1]s], default: %[1]s}
`

const tunedProfiles = `
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: tuned}
spec:
  extends: [baseline]
  seccomp:
    deny:
    - {syscalls: [getppid], errno: EPERM}
    - {syscalls: [personality], args: [{index: 0, op: eq, value: 8}], errno: ENOTTY}
    kill: [{syscalls: [syslog]}]
  limits: {memory: 64Mi, swap: "0", cpu: 500m, pids: 24, bestEffort: [swap]}
  audit: {classes: [exec, file-write, net]}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: inherits}
spec:
  noNewPrivileges: inherit
  audit: {classes: [exec]}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: teams}
spec: {namespaces: ["*"], default: tuned, allowed: [tuned, inherits]}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: nobody}
spec: {namespaces: [nobody], allowed: []}
`

const failingProfiles = `
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: strict}
spec:
  audit: {classes: [exec, file-write], onLoss: kill, stallTimeout: 1s}
---
apiVersion: metsuke.dev/v1alpha1
kind: AgentProfile
metadata: {name: lenient}
spec:
  audit: {classes: [exec, file-write], onLoss: continue, stallTimeout: 1s}
---
apiVersion: metsuke.dev/v1alpha1
kind: ProfileBinding
metadata: {name: any}
spec: {namespaces: ["*"], default: strict, allowed: [strict, lenient]}
`
