// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/internal/launchtest"
)

// The executables that the tests use, compiled once.
var helperPath, workloadPath string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "resident")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if helperPath, err = launchtest.Build(dir, launchtest.HelperPackage); err != nil {
		panic(err)
	}
	workloadPath = filepath.Join(dir, "workload")
	out, err := exec.Command("gcc", "-static", "-O2", "-Wall", "-o", workloadPath, "testdata/workload.c").CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("compile testdata/workload.c (needs gcc and libc6-dev): %v\n%s", err, out))
	}
	return m.Run()
}

// bits makes a capability set.
func bits(caps ...int) (set uint64) {
	for _, c := range caps {
		set |= 1 << c
	}
	return set
}

var (
	// What containers get by default, and here the workload.
	workloadCaps = bits(unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID,
		unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT, unix.CAP_MKNOD,
		unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP)
	// What the rewrite adds to the container's processes: all that its launchers and its resident have.
	addedCaps = bits(unix.CAP_SYS_PTRACE, unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH, unix.CAP_DAC_OVERRIDE, unix.CAP_KILL,
		unix.CAP_SETGID)
)

// container is a root file system in namespaces of its own, with what a delegate makes of the rewritten specification.
type container struct {
	t    testing.TB
	init *process
	caps uint64 // of its processes when they are started

	killInit sync.Once
}

// process is one that was started in a container.
type process struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *bufio.Reader
	stderr *output
	waited chan struct{}
}

// output is what a process has printed on its stderr.
type output struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// onThread runs f on a thread of its own, which ends with it: what f makes of it (namespaces, capabilities) is inherited
// by the processes that it starts, and by nothing else.
func onThread(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func steps(all ...func() error) error {
	for i, step := range all {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// newContainer makes a container and starts its first process. prepare, if not nil, changes the root file system first, in
// the container's mount namespace.
func newContainer(t testing.TB, prepare func(root string) error, argv ...string) *container {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: namespaces")
	}
	launchtest.Watch(t)
	root := t.TempDir()
	c := &container{t: t, caps: workloadCaps | addedCaps}
	onThread(t, func() error {
		if err := steps(
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755") },
			func() error { return fill(root) },
			func() error {
				if prepare == nil {
					return nil
				}
				return prepare(root)
			},
			func() error { return unix.Chdir(root) },
			func() error { return unix.PivotRoot(".", ".") },
			func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		); err != nil {
			return err
		}
		var err error
		c.init, err = c.startHere(exec.Command(argv[0], argv[1:]...), c.caps)
		return err
	})
	// A procfs is of the pid namespace of the process that mounts it.
	mount := c.start(exec.Command("/bin/workload", "mount", "proc", "/proc"), c.caps, nil)
	if got := mount.answer(t); got != "0" {
		t.Fatalf("mount /proc: errno %s", got)
	}
	return c
}

// fill makes the root file system.
func fill(root string) error {
	file := func(name, text string, mode os.FileMode) func() error {
		return func() error { return os.WriteFile(root+name, []byte(text), mode) }
	}
	var made []func() error
	for _, dir := range []string{"/proc", "/bin", "/etc", "/tmp", "/gone", private.Dir} {
		made = append(made, func() error { return os.Mkdir(root+dir, 0o755) })
	}
	return steps(append(made,
		file("/etc/passwd", "root:x:0:0::/:\n", 0o644),
		func() error {
			return unix.Mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		file("/bin/workload", "", 0o755),
		func() error { return unix.Mount(workloadPath, root+"/bin/workload", "", unix.MS_BIND, "") },
		func() error {
			return unix.Mount("tmpfs", root+private.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=4k,nr_inodes=5")
		},
		file(private.Guest, "", 0o600),
		func() error { return unix.Mount(helperPath, root+private.Guest, "", unix.MS_BIND, "") },
		func() error {
			return unix.Mount("", root+private.Guest, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
		},
	)...)
}

// start adds a process to the container, as the delegate's exec does. change, if not nil, is called on its thread.
func (c *container) start(cmd *exec.Cmd, caps uint64, change func() error) *process {
	c.t.Helper()
	var p *process
	onThread(c.t, func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		// All at once, by the pidfd: no path would lead to the second one.
		pidfd, err := unix.PidfdOpen(c.init.cmd.Process.Pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(pidfd)
		if err := unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWIPC); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		if change != nil {
			if err := change(); err != nil {
				return err
			}
		}
		p, err = c.startHere(cmd, caps)
		return err
	})
	return p
}

// startHere starts a process as a child of this thread, with these capabilities.
func (c *container) startHere(cmd *exec.Cmd, caps uint64) (*process, error) {
	for b := range 41 {
		if caps&(1<<b) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(b), 0, 0, 0); err != nil {
			return nil, err
		}
	}
	p := &process{cmd: cmd, stderr: &output{}, waited: make(chan struct{})}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	defer stdout.Close()
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, p.stderr
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=/bin"}
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cred := cmd.SysProcAttr.Credential; cred != nil && cred.Uid != 0 {
		for b := range 41 {
			if caps&(1<<b) != 0 {
				cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(b))
			}
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.stdin, p.stdout = in, bufio.NewReader(out)
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is in cmd.ProcessState
		close(p.waited)
	}()
	c.t.Cleanup(func() {
		c.kill() // all others with it
		p.kill()
		in.Close()
		out.Close()
	})
	return p, nil
}

// kill ends the container as a delegate does.
func (c *container) kill() { c.killInit.Do(c.init.kill) }

// pid is the process's number in its own pid namespace.
func (p *process) pid(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no NSpid")
	return 0
}

// stopped waits until all threads have stopped: kill(2) returns before that.
func (p *process) stopped(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if len(tasks) > 0 && !slices.ContainsFunc(tasks, func(file string) bool {
			stat, err := os.ReadFile(file)
			return err != nil || !strings.Contains(string(stat), ") T ")
		}) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it does not stop")
		}
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.waited
}

// wait returns the exit status, or 128 and the signal.
func (p *process) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.waited:
	case <-time.After(patience):
		t.Fatalf("process %d does not end; stderr %q", p.cmd.Process.Pid, p.stderr)
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// ask gives a workload a command and returns its answer; "" if it ends instead.
func (p *process) ask(t testing.TB, command string, args ...any) string {
	t.Helper()
	p.post(t, command, args...)
	return p.answer(t)
}

func (p *process) post(t testing.TB, command string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(p.stdin, command+"\n", args...); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
}

func (p *process) answer(t testing.TB) string {
	t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// try gives the workload a command whose answer is an errno.
func (p *process) try(t testing.TB, want unix.Errno, command string, args ...any) {
	t.Helper()
	if got := p.ask(t, command, args...); got != strconv.Itoa(int(want)) {
		t.Errorf("%s: errno %q, want %d (%v)", fmt.Sprintf(command, args...), got, int(want), want)
	}
}
