// SPDX-License-Identifier: Apache-2.0

//go:build node

package inside

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests need root, all capabilities and cgroup v2 with nsdelegate: `make node-vm` has a machine with that. Each runs
// this test binary again as the first process of something like a container: in a cgroup, mount and pid namespace of its
// own, where it does what the resident does, and says what it sees.

const (
	stageVariable = "METSUKE_INSIDE_STAGE"
	privateDir    = "/run/inside" // in the container
	privateMount  = privateDir + "/cgroup"
)

// A shape is how an agent lets a container see a cgroup2 mount.
type shape struct {
	Name         string
	Namespace    bool // the container has a cgroup namespace
	MountedFirst bool // the mount is older than that: it shows the whole tree
}

var shapes = []shape{
	{"own namespace, own mount", true, false},
	{"own namespace, the guest's mount", true, true},
	{"the guest's namespace and mount", false, true},
}

// seen is what the process inside says of itself.
type seen struct {
	Direct     string // what a plain write of a limit in the namespace's root gives
	OpenError  string
	Stays      bool // it is in the same cgroup after Open as before
	Namespaces int  // cgroup namespaces that its threads have: one
	Mounts     []string
	Values     []Value
}

// request is what the process inside is asked to do, after it has opened and unmounted.
type request struct {
	Settings []Setting
	Files    []string
}

func TestMain(m *testing.M) {
	var err error
	switch stage := os.Getenv(stageVariable); stage {
	case "":
		os.Exit(m.Run())
	case "resident":
		err = resident()
	default:
		err = container(stage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

// container sets the namespaces up and becomes the resident.
func container(encoded string) error {
	var s shape
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is this thread's, which becomes the process by exec
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH) },
		func() error { return unix.Mount("tmpfs", "/run", "tmpfs", 0, "") },
		func() error { return os.MkdirAll(privateMount, 0o755) },
		func() error {
			if !s.Namespace {
				return nil
			}
			return unix.Unshare(unix.CLONE_NEWCGROUP)
		},
		// Without the option, a mount in the first cgroup namespace takes it from the whole hierarchy.
		func() error { return unix.Mount("cgroup2", privateMount, "cgroup2", 0, "nsdelegate") },
	}
	if s.MountedFirst {
		slices.Reverse(steps[len(steps)-2:])
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	if err := os.Setenv(stageVariable, "resident"); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func resident() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	dir, err := own(privateMount)
	if err != nil {
		return err
	}
	s := seen{Direct: text(os.WriteFile(filepath.Join(dir, "pids.max"), []byte("99"), 0))}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	c, err := Open(privateMount)
	s.OpenError = text(err)
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	s.Stays = string(before) == string(after)
	if s.Namespaces, err = namespaces(); err != nil {
		return err
	}
	if err := errors.Join(unix.Unmount(privateMount, unix.MNT_DETACH), os.Remove(privateMount)); err != nil {
		return err
	}
	if s.Mounts, err = cgroupMounts(); err != nil {
		return err
	}
	for {
		if err := out.Encode(s); err != nil {
			return err
		}
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		c.Apply(r.Settings)
		s.Values = c.Read(r.Files)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// namespaces counts the cgroup namespaces of this process's threads.
func namespaces() (int, error) {
	links, err := filepath.Glob("/proc/self/task/*/ns/cgroup")
	if err != nil {
		return 0, err
	}
	found := map[string]bool{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		} else if err != nil {
			return 0, err
		}
		found[target] = true
	}
	return len(found), nil
}

// cgroupMounts are the mount points of cgroup file systems that this mount namespace shows.
func cgroupMounts() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if before, after, _ := strings.Cut(lines.Text(), " - "); strings.HasPrefix(after, "cgroup") {
			found = append(found, strings.Fields(before)[4])
		}
	}
	return found, lines.Err()
}

// box is a running container, seen from outside.
type box struct {
	t   *testing.T
	dir string // its cgroup
	in  *json.Encoder
	out *json.Decoder
}

func start(t *testing.T, s shape) *box {
	t.Helper()
	if flags, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !strings.Contains(string(flags), "nsdelegate") {
		t.Fatalf("cgroup2 is not mounted with nsdelegate here: run this test in the node VM (%v)", err)
	}
	b := &box{t: t, dir: filepath.Join("/sys/fs/cgroup", strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(t.Name()))}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), stageVariable+"="+string(encoded))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: unix.SIGKILL,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the container: %v", err)
		}
		if err := os.Remove(b.dir); err != nil {
			t.Error(err)
		}
	})
	b.in, b.out = json.NewEncoder(stdin), json.NewDecoder(stdout)
	return b
}

func (b *box) says() seen {
	b.t.Helper()
	var s seen
	if err := b.out.Decode(&s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *box) ask(files []string, settings ...Setting) seen {
	b.t.Helper()
	if err := b.in.Encode(request{settings, files}); err != nil {
		b.t.Fatal(err)
	}
	return b.says()
}

// file is what the kernel has, seen from outside.
func (b *box) file(name string) string {
	b.t.Helper()
	content, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSuffix(string(content), "\n")
}

func TestLimitsFromInside(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.Name, func(t *testing.T) {
			b := start(t, s)
			got := b.says()
			// This is why Open does what it does: without, the kernel refuses.
			if want := "operation not permitted"; strings.Contains(got.Direct, want) != s.Namespace {
				t.Errorf("a plain write gave %q", got.Direct)
			}
			if got.OpenError != "" {
				t.Fatal(got.OpenError)
			}
			if !got.Stays || got.Namespaces != 1 {
				t.Errorf("after Open the process is in its cgroup: %v, and has %d cgroup namespaces", got.Stays, got.Namespaces)
			}
			if len(got.Mounts) != 0 {
				t.Errorf("a workload would see cgroup files at %v", got.Mounts)
			}
			if children := directories(t, b.dir); len(children) != 0 {
				t.Errorf("cgroups are left: %v", children)
			}

			limits := []Setting{
				{"pids.max", "77"}, {"memory.high", "67108864"}, {"memory.max", "134217728"}, {"memory.swap.max", "0"},
				{"cpu.max", "50000 100000"}, {"cpu.weight", "50"}, {"cpuset.cpus", "0"}, {"hugetlb.2MB.max", "0"},
			}
			var names []string
			for _, l := range limits {
				names = append(names, l.File)
			}
			got = b.ask(names, limits...)
			for i, l := range limits {
				if v := got.Values[i]; v.File != l.File || v.Text != l.Value || v.Problem != "" || b.file(l.File) != l.Value {
					t.Errorf("%s: inside %+v, outside %q, want %q", l.File, v, b.file(l.File), l.Value)
				}
			}

			// Kata's agent lifts the pids limit with each update.
			if err := os.WriteFile(filepath.Join(b.dir, "pids.max"), []byte("max"), 0); err != nil {
				t.Fatal(err)
			}
			if got = b.ask([]string{"pids.max"}); got.Values[0].Text != "max" {
				t.Errorf("pids.max was lifted and reads %q", got.Values[0].Text)
			}
			if got = b.ask([]string{"pids.max"}, Setting{"pids.max", "78"}); got.Values[0].Text != "78" || b.file("pids.max") != "78" {
				t.Errorf("applied again: %+v, outside %q", got.Values, b.file("pids.max"))
			}

			// Refused values and files that are not there do not keep the others back.
			got = b.ask([]string{"pids.max"}, Setting{"io.max", "4095:1048575 rbps=1"}, Setting{"memory.low", "1"}, Setting{"pids.max", "79"})
			if v := got.Values; len(v) != 3 || v[0].Text != "79" || !strings.Contains(v[1].Problem, "io.max: no such device") ||
				!strings.Contains(v[2].Problem, "memory.low: file does not exist") {
				t.Errorf("after what is refused: %+v", v)
			}
			if b.file("pids.max") != "79" {
				t.Errorf("pids.max is %q", b.file("pids.max"))
			}
		})
	}
}

// A limit that was set from inside binds the container's processes, not only Open's caller.
func TestLimitBinds(t *testing.T) {
	b := start(t, shapes[0])
	if s := b.says(); s.OpenError != "" {
		t.Fatal(s.OpenError)
	}
	current := b.file("pids.current")
	if got := b.ask([]string{"pids.max"}, Setting{"pids.max", current}); got.Values[0].Text != current {
		t.Fatalf("pids.max is to be %s: %+v", current, got.Values)
	}
	group, err := os.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Run(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("one more process than pids.max: %v", err)
	}
}

func directories(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		if entry.IsDir() {
			found = append(found, entry.Name())
		}
	}
	return found
}
