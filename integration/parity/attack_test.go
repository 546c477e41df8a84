// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestPrivateDirectoryStays has a workload that is root, with a writable root file system and not one
// capability, try to put its own program where the launcher of the next exec session is: that would
// run without a filter, and with the launcher's capabilities.
func TestPrivateDirectoryStays(t *testing.T) {
	w := newWorld(t, true)
	spec := baseSpec()
	spec.Linux.CgroupsPath = w.cgroup()
	spec.Process.Capabilities = capSets(nil, nil)
	spec.Process.Args = []string{"probe", "replace"}
	p, err := w.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.start(p))
	report := p.report()
	for _, attempt := range []string{"unlink-guest", "rename-guest", "unlink-sock", "rename-sock", "rename-directory", "rmdir-directory", "exchange-directory", "create-in-directory", "write-guest"} {
		if !strings.Contains(report, attempt+"=-") {
			t.Errorf("the workload succeeds, or does not try: %s", attempt)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
}

// TestLauncherIsNotTheWorkloadsToRun has a workload run the helper by itself.
func TestLauncherIsNotTheWorkloadsToRun(t *testing.T) {
	w := newWorld(t, true)
	spec := baseSpec()
	spec.Linux.CgroupsPath = w.cgroup()
	p, err := w.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.start(p))
	p.report()
	w.launched = false // a session that is the helper, with a token that nobody knows
	session, err := w.exec(&specs.Process{Args: []string{"/.metsuke/guest", "run", "token", "--", "/bin/probe"}, Cwd: "/", Env: []string{"PATH=/bin"}})
	w.must(err)
	if status, stderr := session.wait(); status != 255 || stderr != "" {
		t.Errorf("exit status %d, stderr %q; want 255 and nothing", status, stderr)
	}
}
