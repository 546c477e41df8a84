// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	report := "pid=1\r\nstatus.Uid=0\t0\nstatus.VmRSS=7 kB\nfd.1=mode 10600 link pipe:[77]\nenv.0=A=b c\n/proc/self/cgroup=0::/k8s/c1\nend\n"
	want := map[string]string{
		"pid": "1", "status.Uid": "0\t0", "fd.1": "mode 10600 link pipe", "env.0": "A=b c", "/proc/self/cgroup": "0::/k8s/ID",
	}
	if diff := cmp.Diff(want, Read(report, true, "c1", "ID")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	delete(want, "pid")
	if diff := cmp.Diff(want, Read(report, false, "c1", "ID")); diff != "" {
		t.Errorf("of one that is not the first (-want +got):\n%s", diff)
	}
}

func TestBuild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "probe")
	if err := Build(path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path).Output()
	if report := Read(string(out), false); err != nil || !strings.HasSuffix(string(out), End) || report["status.CapEff"] == "" || report["arg.0"] != path {
		t.Errorf("%v: %s", err, out)
	}
}
