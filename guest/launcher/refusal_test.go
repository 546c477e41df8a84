// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
)

// TestExecutableNotToBeRun holds the launcher's look for the executable against os/exec's, which is
// runc's, and the text of the error against runc's.
func TestExecutableNotToBeRun(t *testing.T) {
	b := newBox(t)
	write(t, b.root+"/bin/plain", "#!/bin/probe\n", 0o644)
	write(t, b.root+"/bin/roots", "#!/bin/probe\n", 0o700)
	mkdir(t, b.root+"/closed/in")
	if err := errors.Join(os.Chmod(b.root+"/closed", 0o700), os.Symlink("loop", b.root+"/bin/loop")); err != nil {
		t.Fatal(err)
	}
	const initText = "unable to start container process: error during container init: exec: "
	root, user := uint32(0), uint32(4242)
	tests := []struct {
		name string
		uid  uint32
		path string
		text string
	}{
		{"nothing", root, "/bin", `"nothing": executable file not found in $PATH`},
		{"", root, "/bin", `"": executable file not found in $PATH`},
		{".", root, "/bin", `".": executable file not found in $PATH`},
		{"..", root, "/bin", `"..": executable file not found in $PATH`},
		{"probe", root, "", `"probe": executable file not found in $PATH`},
		{"plain", root, "/bin", `"plain": executable file not found in $PATH`},
		{"dir", root, "/", `"dir": executable file not found in $PATH`},
		{"roots", user, "/bin", `"roots": executable file not found in $PATH`},
		{"probe", root, "bin", `"probe": cannot run executable found relative to current directory`},
		{"probe", root, ":/x", `"probe": executable file not found in $PATH`},
		{"/nothing", root, "/bin", `"/nothing": stat /nothing: no such file or directory`},
		{"/bin/probe/x", root, "/bin", `"/bin/probe/x": stat /bin/probe/x: not a directory`},
		{"/bin/loop", root, "/bin", `"/bin/loop": stat /bin/loop: too many levels of symbolic links`},
		{"/closed/in", user, "/bin", `"/closed/in": stat /closed/in: permission denied`},
		{"./plain", root, "/bin", `"./plain": stat ./plain: no such file or directory`},
		{"/bin/plain", root, "/bin", `"/bin/plain": permission denied`},
		{"/bin/roots", user, "/bin", `"/bin/roots": permission denied`},
		{"/dir", root, "/bin", `"/dir": is a directory`},
		{"bin/", user, "/bin", `"bin/": is a directory`},
		{"/" + strings.Repeat("x", 300), root, "/bin", fmt.Sprintf("%q: stat %[1]s: file name too long", "/"+strings.Repeat("x", 300))},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.20q %q %d", test.name, test.path, test.uid), func(t *testing.T) {
			p := &plan.Plan{Filter: launchtest.NotifyFilter(), NoNewPrivs: true}
			r := b.start(t, p, []string{test.name}, func(c *exec.Cmd) {
				c.Env = []string{"PATH=" + test.path}
				c.SysProcAttr.Credential = &syscall.Credential{Uid: test.uid, Gid: test.uid}
			})
			_, err := r.await(t)
			failure, ok := errors.AsType[*rendezvous.ExecError](err)
			if !ok || !failure.Workload() {
				t.Fatalf("got %v, want an error of the workload's", err)
			}
			if want := initText + test.text; err.Error() != want {
				t.Errorf("got  %v\nwant %v", err, want)
			}
			if status := r.wait(t); status != 255 {
				t.Errorf("exit status %d, want 255", status)
			}
			if out := r.stdout.String() + r.stderr.String(); out != "" {
				t.Errorf("it prints %q", out)
			}
		})
	}
}

// TestOwnCapabilitiesOpenNothing: what the launcher was given to read files with is not the workload's.
func TestOwnCapabilitiesOpenNothing(t *testing.T) {
	b := newBox(t)
	write(t, b.root+"/bin/roots", "#!/bin/probe\n", 0o700)
	const dacOverride = 1
	for name, test := range map[string]struct {
		effective uint64
		text      string
	}{
		"the launcher's alone": {0, `"/bin/roots": permission denied`},
		"the workload's too":   {1 << dacOverride, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plan.Plan{Filter: launchtest.NotifyFilter(), Caps: &plan.Caps{Bounding: capBounding(t), Effective: test.effective}}
			r := b.start(t, p, []string{"/bin/roots"}, func(c *exec.Cmd) {
				c.SysProcAttr.Credential = &syscall.Credential{Uid: 4242, Gid: 4242}
				c.SysProcAttr.AmbientCaps = []uintptr{dacOverride, unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN}
			})
			_, err := r.arm(t, nil)
			if test.text == "" && err != nil || test.text != "" && (err == nil || !strings.HasSuffix(err.Error(), test.text)) {
				t.Errorf("got %v, want %q", err, test.text)
			}
			r.wait(t)
		})
	}
}

// TestExecFailsLate covers what only execve finds out: runc's Start has succeeded then.
func TestExecFailsLate(t *testing.T) {
	b := newBox(t)
	write(t, b.root+"/bin/empty", "", 0o755)
	write(t, b.root+"/bin/garbage", "\x00\x01\x02garbage", 0o755)
	write(t, b.root+"/bin/badinterp", "#!/bin/nothing\n", 0o755)
	write(t, b.root+"/bin/dirinterp", "#!/dir\n", 0o755)
	write(t, b.root+"/bin/otherarch", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00"+strings.Repeat("\x00", 100), 0o755)
	for name, text := range map[string]string{
		"empty":     "exec /bin/empty: exec format error\n",
		"garbage":   "exec /bin/garbage: exec format error\n",
		"badinterp": "exec /bin/badinterp: no such file or directory\n",
		"dirinterp": "exec /bin/dirinterp: permission denied\n",
		"otherarch": "exec /bin/otherarch: exec format error\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := b.start(t, &plan.Plan{Filter: launchtest.NotifyAllFilter()}, []string{name}, nil)
			if _, err := r.arm(t, nil); err != nil {
				t.Errorf("Arm: %v; runc's Start succeeds", err)
			}
			if status := r.wait(t); status != 255 {
				t.Errorf("exit status %d, want 255", status)
			}
			if diff := cmp.Diff(text, r.stderr.String()); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPolicyRefusesTheFirstExec(t *testing.T) {
	b := newBox(t)
	r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter()}, []string{"probe"}, nil)
	_, err := r.arm(t, map[int]syscall.Errno{unix.SYS_EXECVE: unix.EPERM})
	if failure, ok := errors.AsType[*rendezvous.ExecError](err); !ok || failure.Stage != plan.StageExec || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want EPERM from exec", err)
	}
	if status := r.wait(t); status != 255 || r.stdout.String() != "" {
		t.Errorf("exit status %d, stdout %q", status, r.stdout.String())
	}
}

// TestFilterNotLoaded has no no_new_privs and no CAP_SYS_ADMIN: the kernel refuses the filter.
func TestFilterNotLoaded(t *testing.T) {
	b := newBox(t)
	tests := map[string]struct {
		plan  *plan.Plan
		stage plan.Stage
		errno syscall.Errno
	}{
		"not privileged":       {&plan.Plan{Filter: launchtest.NotifyFilter()}, plan.StageFilter, unix.EACCES},
		"invalid filter":       {&plan.Plan{Filter: make([]byte, 8), NoNewPrivs: true}, plan.StageFilter, unix.EINVAL},
		"not entitled to drop": {&plan.Plan{Filter: launchtest.NotifyFilter(), Caps: &plan.Caps{}}, plan.StageCaps, unix.EPERM},
		"limit raised": {&plan.Plan{Filter: launchtest.NotifyFilter(), NoNewPrivs: true, Rlimits: []plan.Rlimit{
			{Resource: unix.RLIMIT_NOFILE, Cur: 1 << 30, Max: 1 << 30},
		}}, plan.StageRlimit, unix.EPERM},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := b.start(t, test.plan, []string{"probe"}, func(c *exec.Cmd) {
				c.SysProcAttr.Credential = &syscall.Credential{Uid: 4242, Gid: 4242}
			})
			_, err := r.await(t)
			failure, ok := errors.AsType[*rendezvous.ExecError](err)
			if !ok || failure.Stage != test.stage || failure.Errno != test.errno || failure.Workload() {
				t.Errorf("got %v, want %v: %v", err, test.stage, test.errno)
			}
			if status := r.wait(t); status != 255 || r.stdout.String() != "" {
				t.Errorf("exit status %d, stdout %q", status, r.stdout.String())
			}
		})
	}
}
