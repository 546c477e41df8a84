// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
)

// never fails the test if the workload has run.
func (r *run) never(t testing.TB, wantStatus int) {
	t.Helper()
	status := r.wait(t)
	if status == 128+int(unix.SIGTRAP) && wantStatus == 255 {
		// The Go runtime nudges threads that run long with a signal. Where even rt_sigreturn is
		// notified and nobody answers, that is the thread's end.
		status = wantStatus
	}
	if status != wantStatus {
		t.Errorf("exit status %d, want %d; stderr %q", status, wantStatus, r.stderr.String())
	}
	if r.stdout.String() != "" {
		t.Errorf("the workload has run: %q", r.stdout.String())
	}
}

// filters are the two extremes: the launcher's own calls are not notified, or every one is.
var filters = map[string][]byte{"few notified": launchtest.NotifyFilter(), "all notified": launchtest.NotifyAllFilter()}

func TestSupervisorGone(t *testing.T) {
	b := newBox(t)
	for name, filter := range filters {
		begin := func(t *testing.T) *run {
			return b.start(t, &plan.Plan{Filter: filter}, []string{"probe"}, nil)
		}
		t.Run("given up before it is armed, "+name, func(t *testing.T) {
			r := begin(t)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Listener.Close() // the listener still lives
			l.Close()
			r.never(t, 255)
		})
		t.Run("dead before it is armed, "+name, func(t *testing.T) {
			r := begin(t)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			l.Listener.Close()
			l.Close()
			r.never(t, 255)
		})
		t.Run("canceled with the listener on its way, "+name, func(t *testing.T) {
			r := begin(t)
			time.Sleep(20 * time.Millisecond)
			r.pending.Cancel()
			r.never(t, 255)
		})
		t.Run("listener lost before it is armed, "+name, func(t *testing.T) {
			r := begin(t)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			l.Listener.Close()
			err = l.Arm(deadline(t))
			l.Close()
			if name == "all notified" && (err == nil || errors.Is(err, rendezvous.ErrDied)) { // a nudge (see never) before its report
				r.never(t, 128+int(unix.SIGTRAP))
				return
			}
			if failure, ok := errors.AsType[*rendezvous.ExecError](err); !ok || failure.Stage != plan.StageExec || failure.Errno != unix.ENOSYS {
				t.Errorf("Arm: %v, want ENOSYS from exec", err)
			}
			r.never(t, 255)
		})
		t.Run("never answers, "+name, func(t *testing.T) {
			r := begin(t)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := l.Arm(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Arm: %v, want its deadline's error", err)
			}
			l.Listener.Close()
			r.never(t, 255)
		})
	}
}

func TestNoSupervisor(t *testing.T) {
	b := newBox(t)
	if err := b.rv.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rv.Expect(rendezvous.Spec{Token: "x", Plan: &plan.Plan{Filter: launchtest.NotifyFilter()}}); !errors.Is(err, rendezvous.ErrClosed) {
		t.Errorf("Expect after Close: %v", err)
	}
	// Another's socket, which no waiting makes ours.
	write(t, b.root+"/.metsuke/sock", "", 0o600)
	cmd := exec.Command("/.metsuke/guest", "run", "token", "--", "probe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root, Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
	out, _ := cmd.CombinedOutput()
	if want := "metsuke-guest: run: connect /.metsuke/sock: permission denied\n"; string(out) != want || cmd.ProcessState.ExitCode() != 125 {
		t.Errorf("exit status %d, output %q, want %q", cmd.ProcessState.ExitCode(), out, want)
	}
}

// TestLateSupervisor is the order in a container that has its supervisor inside: the launcher is there first.
func TestLateSupervisor(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, path string){
		"no socket": func(*testing.T, string) {},
		"a socket that nobody listens at": func(t *testing.T, path string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), os.Chmod(path, 0o666)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			if err := b.rv.Close(); err != nil {
				t.Fatal(err)
			}
			before(t, b.root+"/.metsuke/sock")
			const token = "token"
			cmd := exec.Command("/.metsuke/guest", "run", token, "--", "probe")
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root}
			cmd.Env = []string{"PATH=/bin"}
			var out output
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait() //nolint:errcheck // killed; a Go program that begins has files of its /proc open, which is unmounted next
			}()
			time.Sleep(100 * time.Millisecond)
			rv, err := rendezvous.ListenInside(b.root+"/.metsuke/sock", b.helper) // it may connect before it is expected
			if err != nil {
				t.Fatal(err)
			}
			defer rv.Close()
			pending, err := rv.Expect(rendezvous.Spec{Token: token, Plan: &plan.Plan{Filter: launchtest.NotifyFilter()}, Helper: b.helper})
			if err != nil {
				t.Fatal(err)
			}
			r := &run{cmd: cmd, pending: pending}
			if _, err := r.arm(t, nil); err != nil {
				t.Fatalf("%v; the launcher says %q", err, out.String())
			}
		})
	}
}

// TestDescriptorsAreHoarded has a process of the launcher's user keep so many descriptors on their way that the kernel lets nobody
// of that user send one who is not privileged: on a node, root of one container keeps those of all others from starting.
func TestDescriptorsAreHoarded(t *testing.T) {
	const user, limit = 4243, 64
	b := newBox(t)
	hoarder := exec.Command("/bin/probe", "hoard", "500")
	hoarder.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	var said output
	hoarder.Stdout = &said
	stdin, err := hoarder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hoarder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := hoarder.Wait(); err != nil {
			t.Errorf("%v: %s", err, &said)
		}
	}()
	for end := time.Now().Add(patience); said.String() != "hoarded\n"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("hoarder says %q", &said)
		}
	}
	p := &plan.Plan{
		Filter: launchtest.NotifyFilter(), NoNewPrivs: true,
		Rlimits: []plan.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: limit, Max: limit}},
	}
	r := b.start(t, p, []string{"probe"}, func(c *exec.Cmd) {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	})
	if _, err := r.arm(t, nil); err != nil {
		t.Fatal(err)
	}
	if status := r.wait(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &r.stderr)
	}
}

// TestWrongToken is a launcher that nobody expects.
func TestWrongToken(t *testing.T) {
	b := newBox(t)
	r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter()}, []string{"probe"}, func(c *exec.Cmd) {
		c.Args[2] = rendezvous.NewToken()
	})
	r.never(t, 255)
	if _, err := r.await(t); !errors.Is(err, rendezvous.ErrDied) {
		t.Errorf("Await: %v, want %v", err, rendezvous.ErrDied)
	}
}

// TestNotTheHelper is a process that speaks the protocol well but is another program.
func TestNotTheHelper(t *testing.T) {
	b := newBox(t)
	install(t, helperPath, b.root+"/bin/guest", 0o755)
	r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter()}, []string{"probe"}, func(c *exec.Cmd) {
		c.Path = "/bin/guest"
	})
	r.never(t, 255)
	if _, err := r.await(t); !errors.Is(err, rendezvous.ErrDied) {
		t.Errorf("Await: %v, want %v", err, rendezvous.ErrDied)
	}
}

func TestLauncherKilled(t *testing.T) {
	b := newBox(t)
	for name, filter := range filters {
		start := func(t *testing.T) *run {
			return b.start(t, &plan.Plan{Filter: filter}, []string{"probe", "wait"}, nil)
		}
		t.Run("before it connects, "+name, func(t *testing.T) {
			r := start(t)
			r.cmd.Process.Kill()
			l, err := r.await(t)
			if err == nil { // it was faster than the kill
				defer l.Listener.Close()
				err = l.Arm(deadline(t))
			}
			if !errors.Is(err, rendezvous.ErrDied) {
				t.Errorf("Await, or Arm: %v, want %v", err, rendezvous.ErrDied)
			}
			r.never(t, 128+9)
		})
		t.Run("before it is armed, "+name, func(t *testing.T) {
			r := start(t)
			l, err := r.await(t)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Listener.Close()
			r.cmd.Process.Kill()
			r.never(t, 128+9)
			if err := l.Arm(deadline(t)); !errors.Is(err, rendezvous.ErrDied) {
				t.Errorf("Arm: %v, want %v", err, rendezvous.ErrDied)
			}
		})
		t.Run("at any moment, "+name, func(t *testing.T) {
			ends := map[string]int{}
			for i := range 60 {
				r := start(t)
				killed := make(chan struct{})
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() {
					defer close(killed)
					r.cmd.Process.Kill()
				})
				c, err := r.arm(t, nil)
				<-killed
				switch {
				case err == nil:
					ends["armed"]++
				case errors.Is(err, rendezvous.ErrDied):
					ends["died"]++
				default:
					t.Fatalf("killed after %d µs: %v", i*100, err)
				}
				if status := r.wait(t); status != 128+9 {
					t.Errorf("killed after %d µs: exit status %d", i*100, status)
				}
				if c != nil {
					c.Close()
				}
			}
			if ends["died"] == 0 {
				t.Errorf("no launcher died early, so this tests nothing: %v", ends)
			}
		})
	}
}

// TestNobodyAttaches has a helper that its user may read, so that it is by the launcher's own doing
// that no process of the same user can attach to it while it has no filter.
func TestNobodyAttaches(t *testing.T) {
	b := newBox(t)
	if err := os.Chmod(b.root+"/.metsuke/guest", 0o755); err != nil {
		t.Fatal(err)
	}
	user := &syscall.Credential{Uid: 4242, Gid: 4242}
	r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter(), NoNewPrivs: true}, []string{"probe", "wait"}, func(c *exec.Cmd) {
		c.SysProcAttr.Credential = user
	})
	l, err := r.await(t)
	if err != nil {
		t.Fatal(err)
	}
	read := func() error {
		cmd := exec.Command("/bin/probe", "read", fmt.Sprintf("/proc/%d/mem", l.PID))
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root, Credential: user}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("the launcher's memory can be opened by its user: %v", err)
	}
	launchtest.Continue(t, l.Listener, nil)
	if err := l.Arm(deadline(t)); err != nil {
		t.Fatal(err)
	}
	r.waiting(t)
	if err := read(); err != nil {
		t.Errorf("the workload's memory cannot be opened by its user: %v", err)
	}
}

// TestFewThreads bounds the threads that the launcher needs: it has to start under a small pids
// limit.
func TestFewThreads(t *testing.T) {
	const limit = 6
	b := newBox(t)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &before); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: limit, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &few); err != nil { // does not hold for root, that we are
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NPROC, &before) //nolint:errcheck // it was that before
	for i := range 50 {
		r := b.start(t, &plan.Plan{Filter: launchtest.NotifyFilter(), NoNewPrivs: true}, []string{"/bin/badinterp"}, func(c *exec.Cmd) {
			write(t, b.root+"/bin/badinterp", "#!/nothing", 0o755) // a Go workload would need threads too
			c.SysProcAttr.Credential = &syscall.Credential{Uid: 4243, Gid: 4243}
		})
		if _, err := r.arm(t, nil); err != nil {
			t.Fatalf("run %d: %v; stderr %q", i, err, r.stderr.String())
		}
		r.wait(t)
		if want := "exec /bin/badinterp: no such file or directory\n"; r.stderr.String() != want {
			t.Fatalf("run %d: stderr %q, want %q", i, r.stderr.String(), want)
		}
	}
}

// TestManyAtOnce starts launchers in parallel at one socket.
func TestManyAtOnce(t *testing.T) {
	b := newBox(t)
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for range 10 {
				r := b.start(t, &plan.Plan{Filter: launchtest.NotifyAllFilter()}, []string{"probe"}, nil)
				c, err := r.arm(t, nil)
				if err != nil {
					t.Fatal(err)
				}
				if status := r.wait(t); status != 0 {
					t.Errorf("exit status %d, stderr %q", status, r.stderr.String())
				}
				c.Close()
			}
		})
	}
}
