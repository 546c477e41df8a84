// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
	"metsuke.dev/metsuke/seccomp/notify/notifytest"
)

// patience is what a step takes at the very most, on a machine that is busy with other tests.
const patience = time.Minute

func TestMain(m *testing.M) {
	notifytest.Main()
	fds := openDescriptors()
	code := m.Run()
	if victimDir != "" {
		os.RemoveAll(victimDir)
	}
	if left := leftOver(fds); code == 0 && len(left) > 0 {
		fmt.Fprintln(os.Stderr, "descriptors left open by the tests:", left)
		code = 1
	}
	os.Exit(code)
}

// openDescriptors lists what this process has open of the kinds that a supervisor opens.
func openDescriptors() []string {
	var found []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(link, "anon_inode:[eventfd") || strings.HasPrefix(link, "pidfd:") ||
			strings.HasPrefix(link, "anon_inode:[pidfd") || strings.HasPrefix(link, "anon_inode:seccomp") ||
			strings.HasPrefix(link, "/proc") || strings.HasPrefix(link, "anon_inode:[eventpoll")) {
			found = append(found, e.Name()+" "+link)
		}
	}
	return found
}

// leftOver returns what is open and was not before. The runtime opens an epoll descriptor and an eventfd for itself.
func leftOver(before []string) []string {
	var left []string
	runtimes := 0
	for _, d := range openDescriptors() {
		if slices.Contains(before, d) || strings.Contains(d, "/proc/self/fd") || strings.HasSuffix(d, fmt.Sprintf("/proc/%d/fd", os.Getpid())) {
			continue
		}
		if strings.Contains(d, "eventfd") || strings.Contains(d, "eventpoll") {
			if runtimes++; runtimes <= 2 {
				continue
			}
		}
		left = append(left, d)
	}
	return left
}

var (
	victimDir  string
	victimOnce = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "victim")
		if err != nil {
			return "", err
		}
		victimDir = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", err
		}
		path := filepath.Join(dir, "victim")
		out, err := exec.Command("gcc", "-static", "-O2", "-Wall", "-pthread", "-o", path, "testdata/victim.c").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("compile testdata/victim.c (needs gcc and libc6-dev): %w\n%s", err, out)
		}
		return path, nil
	})
)

func victim(t testing.TB) string {
	t.Helper()
	path, err := victimOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// recorder keeps copies of what it is given, and fails when it is told to.
type recorder struct {
	mu      sync.Mutex
	events  []audit.Event
	refused int
	fail    error
	folded  int64 // as a FoldSink would have it
	hook    func(*audit.Event)
}

var errSink = errors.New("no space left on device")

func (r *recorder) Append(ev *audit.Event) error { return r.AppendFolded(ev, 0) }

func (r *recorder) Fold(n uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.folded += int64(n)
	return nil
}

func (r *recorder) AppendFolded(ev *audit.Event, n uint64) error {
	if r.hook != nil {
		r.hook(ev)
	}
	if err := ev.Validate(); err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		r.refused++
		return r.fail
	}
	r.folded -= int64(n)
	ev2 := *ev
	if ev.Syscall != nil {
		s := *ev.Syscall
		for _, p := range []*string{&s.Comm, &s.Exe, &s.Syscall, &s.Arch, &s.Class, &s.Errno, &s.RuleID} {
			*p = strings.Clone(*p)
		}
		s.Args = slices.Clone(s.Args)
		for i := range s.Args {
			s.Args[i].Value = strings.Clone(s.Args[i].Value)
		}
		ev2.Syscall = &s
	}
	if ev.Loss != nil {
		l := *ev.Loss
		ev2.Loss = &l
	}
	r.events = append(r.events, ev2)
	return nil
}

func (r *recorder) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *recorder) count() (events, refused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events), r.refused
}

// calls returns the events of a call, in order.
func (r *recorder) calls(name string) []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []audit.Event
	for _, ev := range r.events {
		if ev.Syscall != nil && ev.Syscall.Syscall == name {
			found = append(found, ev)
		}
	}
	return found
}

func (r *recorder) losses() []audit.Loss {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []audit.Loss
	for _, ev := range r.events {
		if ev.Loss != nil {
			found = append(found, *ev.Loss)
		}
	}
	return found
}

// total adds up folded and single events.
func total(events []audit.Event) (n uint64) {
	for _, ev := range events {
		n += max(ev.Syscall.Count, 1)
	}
	return n
}

func argOf(ev audit.Event, name string) audit.Arg {
	for _, a := range ev.Syscall.Args {
		if a.Name == name {
			return a
		}
	}
	return audit.Arg{}
}

// rules decides by number: what is not named is bookkeeping.
type rules map[int]seccomp.Decision

func (r rules) Decide(d *seccomp.Data) seccomp.Decision {
	if dec, ok := r[int(d.Nr)]; ok {
		return dec
	}
	return seccomp.Decision{Action: seccomp.ActionAudit, Silent: true, RuleID: "tracking"}
}

func audited(class string) seccomp.Decision {
	return seccomp.Decision{Action: seccomp.ActionAudit, Class: class, RuleID: class}
}

func denied(errno unix.Errno) seccomp.Decision {
	return seccomp.Decision{Action: seccomp.ActionDeny, Errno: uint16(errno), RuleID: "deny[0]", Origin: "test"}
}

var killed = seccomp.Decision{Action: seccomp.ActionKill, RuleID: "kill[0]", Origin: "test"}

// numbers are what a filter for these rules notifies: them and the tracking calls.
func (r rules) numbers() []int {
	nrs := []int{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SETUID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
		unix.SYS_SETGROUPS, unix.SYS_CAPSET, unix.SYS_PRCTL,
	}
	for nr := range r {
		if !slices.Contains(nrs, nr) {
			nrs = append(nrs, nr)
		}
	}
	return nrs
}

// stand is a supervisor and its sink; closing is checked for leaks.
type stand struct {
	*Supervisor
	sink *recorder
	loss chan audit.Loss
}

func newStand(t testing.TB, opts Options) *stand {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	s := &stand{sink: &recorder{}, loss: make(chan audit.Loss, 100)}
	if opts.Sink == nil {
		opts.Sink = s.sink
	}
	opts.OnLoss = func(l audit.Loss) { s.loss <- l }
	sup, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Supervisor = sup
	t.Cleanup(func() {
		if err := sup.Close(); err != nil && !t.Failed() {
			t.Errorf("Close: %v", err)
		}
		if n := sup.watched.Load(); n != 0 {
			t.Errorf("%d threads are still watched", n)
		}
		for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<16)
				t.Fatalf("%d goroutines, %d at the start\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
			}
		}
	})
	return s
}

// run starts a victim under rules and serves it.
func (s *stand) run(t testing.TB, r rules, exec string, args ...string) (*notifytest.Process, *Session) {
	t.Helper()
	p := notifytest.Launch(t, r.numbers(), append([]string{victim(t)}, args...)...)
	session, err := s.Attach(p.Listener, Leader{PID: p.PID()}, exec)
	if err != nil {
		t.Fatal(err)
	}
	p.Arm()
	return p, session
}

// finish waits for a victim's end and its session's, and returns what it printed.
func finish(t testing.TB, p *notifytest.Process, session *Session) string {
	t.Helper()
	out := p.Wait()
	ended(t, session)
	return out
}

func ended(t testing.TB, session *Session) {
	t.Helper()
	select {
	case <-session.Done():
	case <-time.After(patience):
		t.Fatal("the session does not end")
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}
