// SPDX-License-Identifier: Apache-2.0

package e2e

import (
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
	return append(stand.StandardHandlers(),
		stand.Handler{Name: tuned, Profiles: map[string]string{"profiles.yaml": tunedProfiles}},
		stand.Handler{Name: failing, Profiles: map[string]string{"profiles.yaml": failingProfiles}},
	)
}

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
