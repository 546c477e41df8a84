// SPDX-License-Identifier: Apache-2.0

package kind

import (
	"context"
	"strings"
	"time"
)

// orphans prints what belongs to no pod and no container that the node's CRI knows, one thing a line: shims, mounts, cgroups, state
// directories; and sockets of shims on which nobody listens, and network namespaces without a process.
const orphans = `
known=$(crictl pods --quiet --no-trunc; crictl ps --all --quiet --no-trunc)
{
  ps -eo args= | grep -E '^([^ ]*/)?(containerd-shim-|metsuke|runc)' | sed 's/^/process /' || true
  findmnt --list --noheadings --output TARGET | sed 's/^/mount /'
  find /sys/fs/cgroup -type d | sed 's/^/cgroup /'
  find /run /var/lib/containerd -mindepth 1 -maxdepth 5 -not -path '/run/containerd/s/*' -not -path '*/blobs/*' -not -path '*/snapshots/*' | sed 's/^/file /'
} 2>/dev/null | sed -nE 's/([0-9a-f]{64}).*/\1/p' | sort -u | grep -vF "${known:-none}" || true
for socket in /run/containerd/s/*; do
  [ ! -S "$socket" ] || grep -qF "$socket" /proc/net/unix || echo "socket $socket"
done
for namespace in /run/netns/*; do
  [ ! -e "$namespace" ] || [ -n "$(ip netns pids "${namespace##*/}")" ] || echo "namespace $namespace"
done
`

// Leaks waits until nothing on the node belongs to no pod, and returns what does when the context ends first.
func (n *Node) Leaks(ctx context.Context) ([]string, error) {
	for {
		left, err := n.Script(context.WithoutCancel(ctx), orphans) // an end in the middle would tell nothing
		if err != nil || left == "" {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return strings.Split(left, "\n"), nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}
