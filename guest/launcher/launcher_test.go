// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

// TestLimits looks at the launcher just before execve, which keeps limits: the probe is no use, for
// Go programs raise their soft limit of open files. So would the launcher.
func TestLimits(t *testing.T) {
	b := newBox(t)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	own := unix.Rlimit{Cur: 200, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before) //nolint:errcheck // it was that before
	for name, test := range map[string]struct {
		limits []plan.Rlimit
		want   unix.Rlimit
	}{
		"inherited":               {nil, own},
		"that the delegate lost":  {[]plan.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: 77, Max: 99}}, unix.Rlimit{Cur: 77, Max: 99}},
		"as high as may be, both": {[]plan.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: 99, Max: 99}}, unix.Rlimit{Cur: 99, Max: 99}},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter(), Rlimits: test.limits}, []string{"probe"}, nil)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Listener.Close()
			defer l.Close()
			var got unix.Rlimit
			if err := unix.Prlimit(l.PID, unix.RLIMIT_NOFILE, nil, &got); err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("the workload would get %v open files, want %v", got, test.want)
			}
		})
	}
}

func TestArgumentsAndEnvironment(t *testing.T) {
	b := newBox(t)
	p := &plan.Plan{Filter: launchtest.NotifyFilter(), Env: []plan.EnvVar{
		{Index: 0, Var: "GODEBUG=inittrace=1"}, {Index: 2, Var: "GOGC=off"}, {Index: 9, Var: "GOLAST="},
	}}
	r := b.start(t, p, []string{"/bin/probe", "a b", "", "--", "\xff"}, func(c *exec.Cmd) {
		c.Env = []string{"PATH=/nowhere", "A=1", "A=2", "EMPTY="}
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	})
	if _, err := r.arm(t, nil); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	want := `arg 0 "/bin/probe"
arg 1 "a b"
arg 2 ""
arg 3 "--"
arg 4 "\xff"
env "GODEBUG=inittrace=1"
env "PATH=/nowhere"
env "GOGC=off"
env "A=2"
env "EMPTY="
env "GOLAST="
pid 1
`
	if diff := cmp.Diff(want, r.stdout.String()); diff != "" {
		t.Errorf("the workload's view (-want +got):\n%s", diff)
	}
	// The probe is a Go program itself and obeys GODEBUG; the launcher must not.
	if n := strings.Count(r.stderr.String(), "init runtime "); n > 1 {
		t.Errorf("the launcher obeys the workload's GODEBUG:\n%s", r.stderr.String())
	}
}

// TestOneCPU runs under a filter that notifies every call, on one CPU, with and without the
// variable that would tell the Go runtime to make do with one thread at a time.
func TestOneCPU(t *testing.T) {
	b := newBox(t)
	runtime.LockOSThread() // children inherit the thread's affinity; the thread ends with the test
	var one unix.CPUSet
	one.Set(firstCPU(t))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		r := b.start(t, &plan.Plan{Filter: launchtest.NotifyAllFilter()}, []string{"probe"}, func(c *exec.Cmd) {
			if i%2 == 1 {
				c.Env = append(c.Env, "GOMAXPROCS=1")
			}
		})
		c, err := r.arm(t, nil)
		if err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
		if status := r.wait(t); status != 0 {
			t.Fatalf("run %d: exit status %d, stderr %q", i, status, r.stderr.String())
		}
		c.Close()
	}
}

func firstCPU(t testing.TB) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			return cpu
		}
	}
	t.Fatal("no CPU")
	return 0
}

// TestKernelWithoutWaitKillable plays a kernel before 5.19, with a filter that refuses the flag.
func TestKernelWithoutWaitKillable(t *testing.T) {
	b := newBox(t)
	r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter()}, []string{"probe"}, func(c *exec.Cmd) {
		c.Path, c.Args = "/bin/probe", append([]string{"probe", "old-kernel", c.Path}, c.Args[1:]...)
	})
	if _, err := r.arm(t, nil); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(t); status != 0 {
		t.Errorf("exit status %d, stderr %q", status, r.stderr.String())
	}
}

// TestHelperIsSmall bounds what every container pays for: the helper's bytes, which Kata copies into
// guests (3.5 MB is what gets through its channel with room to spare), and the launcher's packages.
func TestHelperIsSmall(t *testing.T) {
	st, err := os.Stat(helperPath)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() >= 3_500_000 {
		t.Errorf("the helper has %d bytes, want less than 3.5 million", st.Size())
	}
	out, err := exec.Command("go", "list", "-deps", "metsuke.dev/metsuke/guest/launcher").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{ // beside internal packages, which these bring along
		"unsafe": true, "runtime": true, "syscall": true, "sync": true, "sync/atomic": true, "path": true,
		"errors": true, "iter": true, "slices": true, "cmp": true, "unicode/utf8": true, "math/bits": true,
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		own := strings.HasPrefix(pkg, "metsuke.dev/metsuke/guest/")
		if !own && !allowed[pkg] && !strings.HasPrefix(pkg, "internal/") {
			t.Errorf("the launcher imports %s: it pays for it in every container", pkg)
		}
	}
}

func TestVerbs(t *testing.T) {
	for _, args := range [][]string{{}, {"audit"}, {"run"}, {"run", "token"}, {"run", "token", "--"}, {"run", "token", "x", "y"}, {"run", "a b", "--", "x"}} {
		cmd := exec.Command(helperPath, args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		cmd.Run() //nolint:errcheck // the status is looked at
		if status := cmd.ProcessState.ExitCode(); status != 125 || !strings.HasPrefix(stderr.String(), "metsuke-guest: ") {
			t.Errorf("%q: exit status %d, stderr %q", args, status, stderr.String())
		}
	}
}

func TestBothArchitecturesCompile(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), arch), launchtest.HelperPackage)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", arch, err, out)
		}
	}
}
