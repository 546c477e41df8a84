// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
)

// box is a root directory with the helper, the rendezvous and a workload in it, as a container's.
type box struct {
	root   string
	helper rendezvous.FileID
	rv     *rendezvous.Rendezvous
}

// The executables that the tests use, compiled once.
var helperPath, probePath string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

// runTests runs them in a mount namespace of their own: boxes have a /proc.
func runTests(m *testing.M) int {
	const inside = "METSUKE_TEST_INSIDE"
	if os.Getenv(inside) == "" && os.Getuid() == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // Pdeathsig is about the thread
		if err := cmd.Run(); cmd.ProcessState == nil {
			panic(err)
		}
		return cmd.ProcessState.ExitCode()
	}
	dir, err := os.MkdirTemp("", "launcher")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if helperPath, err = launchtest.Build(dir, launchtest.HelperPackage); err != nil {
		panic(err)
	}
	if probePath, err = launchtest.Build(dir, "./testdata/probe"); err != nil {
		panic(err)
	}
	return m.Run()
}

func newBox(t testing.TB) *box {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: chroot, namespaces")
	}
	launchtest.Watch(t)
	root, err := os.MkdirTemp("", "box") // short, and of mode 0755 below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, dir := range []string{".metsuke", "bin", "dir", "proc"} {
		mkdir(t, filepath.Join(root, dir))
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root+"/proc", 0); err != nil {
			t.Error(err)
		}
	})
	install(t, helperPath, filepath.Join(root, ".metsuke/guest"), 0o711)
	install(t, probePath, filepath.Join(root, "bin/probe"), 0o755)
	b := &box{root: root}
	if b.helper, err = rendezvous.IdentifyFile(filepath.Join(root, ".metsuke/guest")); err != nil {
		t.Fatal(err)
	}
	if b.rv, err = rendezvous.Listen(filepath.Join(root, ".metsuke/sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.rv.Close() })
	return b
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func install(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data), mode)
}

func write(t testing.TB, path, data string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// patience is what a step takes at the very most, on a machine that is busy with other tests.
const patience = 2 * time.Minute

// run is one launcher that was started.
type run struct {
	cmd            *exec.Cmd
	pending        *rendezvous.Pending
	stdin          io.WriteCloser
	stdout, stderr output
}

// output is what a process has printed so far.
type output struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// start starts the launcher with argv as its workload and lets change edit the command first. The
// launcher's pid is not confirmed.
func (b *box) start(t testing.TB, p *plan.Plan, argv []string, change func(*exec.Cmd)) *run {
	t.Helper()
	token := rendezvous.NewToken()
	pending, err := b.rv.Expect(rendezvous.Spec{Token: token, Plan: p, Helper: b.helper})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{pending: pending}
	r.cmd = exec.Command("/.metsuke/guest", append([]string{"run", token, "--"}, argv...)...)
	r.cmd.Env = []string{"PATH=/bin", "HOME=/"}
	r.cmd.Dir = "/"
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r.cmd)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.stdin.Close()
		r.cmd.Process.Kill() // or ended already
		r.cmd.Wait()         //nolint:errcheck // waited for already
	})
	return r
}

// arm brings the launcher to its execve under a supervisor that lets everything go on.
func (r *run) arm(t testing.TB, refuse map[int]syscall.Errno) (*launchtest.Continuer, error) {
	t.Helper()
	l, err := r.await(t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	c := launchtest.Continue(t, l.Listener, refuse)
	return c, l.Arm(deadline(t))
}

// await confirms the launcher's pid and waits for its listener.
func (r *run) await(t testing.TB) (*rendezvous.Launch, error) {
	t.Helper()
	if err := r.pending.Confirm(r.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return r.pending.Await(deadline(t))
}

// wait closes the workload's input and returns its exit status.
func (r *run) wait(t testing.TB) int {
	t.Helper()
	r.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	select {
	case <-done: //nolint:errcheck // only its end matters here
	case <-time.After(patience):
		t.Fatal("the process does not end")
	}
	ws := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
