// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/integration/parity/probe"
	"metsuke.dev/metsuke/internal/launchtest"
	"metsuke.dev/metsuke/shim/bundle"
)

// patience bounds what would otherwise hang for ever. It is long, for how busy the machine is, is not tested.
const patience = 5 * time.Minute

// What the tests run, set by TestMain.
var runcPath, helperPath, probePath string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "parity")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, "parity tests:", err)
		return 1
	}
	defer cleanCgroups()
	return m.Run()
}

func prepare(dir string) (err error) {
	if os.Getuid() != 0 {
		return errors.New("they need root")
	}
	if len(forms) == 0 {
		return fmt.Errorf("METSUKE_PLACEMENT is %q; it is host or guest", os.Getenv("METSUKE_PLACEMENT"))
	}
	if runcPath = os.Getenv("METSUKE_RUNC"); runcPath == "" {
		if runcPath, err = exec.LookPath("runc"); err != nil {
			return fmt.Errorf("set METSUKE_RUNC, or have runc in PATH: %w", err)
		}
	}
	if helperPath, err = launchtest.Build(dir, launchtest.HelperPackage); err != nil {
		return err
	}
	probePath = filepath.Join(dir, "probe")
	if err := probe.Build(probePath); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // containers in a user namespace go through it
		return err
	}
	// What we were started with ignored (nohup(1), a CI's runner) is so for every child; what is handled is not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	// Containers' processes become ours, so that their exit status can be had.
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// world is where containers of one test live. By way of the launcher, or not.
type world struct {
	t        testing.TB
	dir      string
	launched bool
	form     form // of what is launched
	rv       *rendezvous.Rendezvous
	helper   rendezvous.FileID
	filter   []byte
	refuse   map[int]unix.Errno  // what the supervisor refuses
	original bundle.Capabilities // of the container, before they were widened
}

func newWorld(t testing.TB, launched bool) *world {
	t.Helper()
	launchtest.Watch(t)
	dir, err := os.MkdirTemp("", "p") // short: the console's socket has no long name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, launched: launched, form: forms[0], filter: launchtest.NotifyFilter()}
	w.must(os.Chmod(dir, 0o711))
	for _, sub := range []string{"bundle/rootfs/bin", "bundle/rootfs/dir", "bundle/rootfs/etc", "bundle/rootfs/home/user", "state", "rendezvous"} {
		w.must(os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	w.file("bin/probe", read(t, probePath), 0o755)
	w.file("etc/passwd", []byte("root:x:0:0::/root:\nuser:x:1000:1000::/home/user:\n"), 0o644)
	if launched {
		if w.helper, err = rendezvous.IdentifyFile(helperPath); err != nil {
			t.Fatal(err)
		}
		if w.rv, err = rendezvous.Listen(w.socket()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.rv.Close() })
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) socket() string { return filepath.Join(w.dir, "rendezvous/sock") }
func (w *world) cgroup() string { return cgroupParent + filepath.Base(w.dir) }
func (w *world) bundle() string { return filepath.Join(w.dir, "bundle") }

// file puts a file into the container's root.
func (w *world) file(name string, data []byte, mode os.FileMode) {
	w.t.Helper()
	path := filepath.Join(w.bundle(), "rootfs", name)
	w.must(os.WriteFile(path, data, mode))
	w.must(os.Chmod(path, mode))
}

// link puts a symbolic link there.
func (w *world) link(name, target string) {
	w.t.Helper()
	w.must(os.Symlink(target, filepath.Join(w.bundle(), "rootfs", name)))
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// runc runs a command of runc's with these files as its standard streams, which containers inherit,
// and returns its own messages.
func (w *world) runc(stdio []*os.File, args ...string) error {
	w.t.Helper()
	log := filepath.Join(w.dir, "runc.log")
	os.Remove(log)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, runcPath, append([]string{"--root", filepath.Join(w.dir, "state"), "--log", log, "--log-format", "json"}, args...)...)
	if len(stdio) == 3 {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := ""
	for line := range strings.Lines(string(read(w.t, log))) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			text = entry.Msg
		}
	}
	return fmt.Errorf("%s: %w", text, err)
}

// process is a running init or exec session.
type process struct {
	w             *world
	pid           int
	out           *os.File // read end of stdout
	err           *os.File // of stderr
	pending       *rendezvous.Pending
	continuer     *launchtest.Continuer
	stdin         *os.File
	stdoutW, errW *os.File
}

const id = "x"

// create writes the bundle and creates the container; its init is not started.
func (w *world) create(spec *specs.Spec, extra ...string) (*process, error) {
	w.t.Helper()
	data, err := json.Marshal(spec)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(w.bundle(), "config.json"), data, 0o644))
	p := w.stdio()
	if w.launched {
		p.pending = w.editBundle()
	}
	pidFile := filepath.Join(w.dir, "init.pid")
	args := append([]string{"create", "--bundle", w.bundle(), "--pid-file", pidFile}, extra...)
	if err := w.runc(p.files(), append(args, id)...); err != nil {
		return nil, err
	}
	w.t.Cleanup(func() {
		w.runc(nil, "delete", "--force", id) //nolint:errcheck // deleted already
		p.reap()
	})
	p.closeWriters()
	p.readPid(pidFile)
	if w.launched {
		w.must(bundle.CheckMounted(fmt.Sprintf("/proc/%d/root", p.pid), helperPath))
	}
	return p, nil
}

// start starts the container's init.
func (w *world) start(p *process) error {
	w.t.Helper()
	if err := w.runc(nil, "start", id); err != nil {
		return err
	}
	return p.arm()
}

// exec starts an exec session.
func (w *world) exec(proc *specs.Process, extra ...string) (*process, error) {
	w.t.Helper()
	data, err := json.Marshal(proc)
	w.must(err)
	p := w.stdio()
	if w.launched {
		data, p.pending = w.editExec(data)
	}
	processFile, pidFile := filepath.Join(w.dir, "process.json"), filepath.Join(w.dir, "exec.pid")
	w.must(os.WriteFile(processFile, data, 0o644))
	args := append([]string{"exec", "--detach", "--process", processFile, "--pid-file", pidFile}, extra...)
	if err := w.runc(p.files(), append(args, id)...); err != nil {
		return nil, err
	}
	p.closeWriters()
	p.readPid(pidFile)
	w.t.Cleanup(func() {
		unix.Kill(p.pid, unix.SIGKILL) //nolint:errcheck // ended already
		p.reap()
	})
	return p, p.arm()
}

// stdio makes the streams of a process.
func (w *world) stdio() *process {
	w.t.Helper()
	p := &process{w: w}
	var err error
	p.stdin, err = os.Open(os.DevNull)
	w.must(err)
	p.out, p.stdoutW, err = os.Pipe()
	w.must(err)
	p.err, p.errW, err = os.Pipe()
	w.must(err)
	w.t.Cleanup(func() {
		p.closeWriters()
		p.out.Close()
		p.err.Close()
	})
	return p
}

func (p *process) files() []*os.File { return []*os.File{p.stdin, p.stdoutW, p.errW} }

func (p *process) closeWriters() {
	for _, f := range p.files() {
		f.Close()
	}
}

func (p *process) readPid(path string) {
	p.w.t.Helper()
	var err error
	p.pid, err = strconv.Atoi(string(read(p.w.t, path)))
	p.w.must(err)
}

// report reads what the probe prints, to its end.
func (p *process) report() string {
	p.w.t.Helper()
	return p.reportFrom(p.out)
}

func (p *process) reportFrom(f *os.File) string {
	p.w.t.Helper()
	f.SetReadDeadline(time.Now().Add(patience)) // pipes and terminals have one
	var got bytes.Buffer
	buf := make([]byte, 1<<16)
	for !strings.Contains(got.String(), "\nend") {
		n, err := f.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			rest := []byte("(not read)")
			if errors.Is(err, io.EOF) {
				rest, _ = io.ReadAll(p.err)
			}
			p.w.t.Fatalf("the probe's report ends early: %v; it has %q, stderr %q", err, got.String(), rest)
		}
	}
	return got.String()
}

// reap waits for a process that has been killed, if nobody has before.
func (p *process) reap() {
	if p.pid > 0 {
		unix.Wait4(p.pid, nil, 0, nil) //nolint:errcheck // waited for already
	}
}

// wait waits for the end of the process and returns its exit status and what it printed on stderr.
func (p *process) wait() (status int, stderr string) {
	p.w.t.Helper()
	var ws syscall.WaitStatus
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		pid, err := syscall.Wait4(p.pid, &ws, syscall.WNOHANG, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			p.w.t.Fatal(err)
		}
		if pid == p.pid {
			break
		}
		if time.Now().After(end) {
			p.w.t.Fatal("the process does not end")
		}
	}
	rest, err := io.ReadAll(p.err)
	p.w.must(err)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), string(rest)
	}
	return ws.ExitStatus(), string(rest)
}
