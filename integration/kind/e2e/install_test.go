// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/integration/kind"
)

// filesScript prints what an installation could change of a node's files, with sums.
const filesScript = `dirs=$(ls -d /etc/containerd /etc/metsuke /etc/systemd /opt /usr/local 2>/dev/null || true)
find $dirs -type f -exec sha256sum {} + | sort; find $dirs -type l -printf '%p -> %l\n' | sort`

// The doctor finds nothing to mend on a node as the installer leaves it, its canary pod included, which no kubelet knows.
func TestDoctor(t *testing.T) {
	s := newSuite(t, shared)
	out, err := s.Nodes[0].Exec(s.ctx, "metsuke", "doctor", "--handler", kind.Handler)
	if err != nil || !strings.Contains(out, " 0 failed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Installed again, nothing changes; taken away, the node has the files that it had before; and installed once more it runs pods.
func TestUninstall(t *testing.T) {
	s := newSuite(t, shared)
	n := s.Nodes[0]
	files := func() string {
		t.Helper()
		out, err := n.Script(s.ctx, filesScript)
		s.must(err)
		return out
	}
	installed := files()
	s.must(n.Install(s.ctx))
	if diff := cmp.Diff(installed, files()); diff != "" {
		t.Errorf("installed again (-before +after):\n%s", diff)
	}
	_, err := n.Exec(s.ctx, "metsuke", "node", "uninstall")
	s.must(err)
	if diff := cmp.Diff(shared.bare, files()); diff != "" {
		t.Errorf("taken away (-before +after):\n%s", diff)
	}
	s.must(n.Install(s.ctx))
	s.supervised(s.run("pod", spec(idle("main"))), "main")
}
