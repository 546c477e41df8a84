// SPDX-License-Identifier: Apache-2.0

package notify_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/seccomp/notify"
	"metsuke.dev/metsuke/seccomp/notify/notifytest"
)

func TestMain(m *testing.M) {
	notifytest.Main()
	os.Exit(m.Run())
}

func TestNewListenerRefuses(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	for name, fd := range map[string]int{"file": int(file.Fd()), "eventfd": event} {
		if _, err := notify.NewListener(fd); !errors.Is(err, notify.ErrNotListener) {
			t.Errorf("%s: error %v, want ErrNotListener", name, err)
		}
	}
	if _, err := notify.NewListener(1 << 20); err == nil {
		t.Error("a descriptor that is not open was taken")
	}
}

// await waits until something is there; Wait may return earlier, for a signal of the Go runtime's.
func await(l *notify.Listener, stop int) (notify.Readiness, error) {
	for end := time.Now().Add(time.Minute); ; {
		if ready, err := l.Wait(stop, time.Minute); ready != 0 || err != nil || time.Now().After(end) {
			return ready, err
		}
	}
}

// next waits for one request.
func next(t *testing.T, l *notify.Listener, r *notify.Request) {
	t.Helper()
	ready, err := await(l, -1)
	if err != nil || ready&notify.Ready == 0 {
		t.Fatalf("Wait: %b, %v", ready, err)
	}
	if err := l.Receive(r); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	p := notifytest.Launch(t, []int{unix.SYS_EXECVE, unix.SYS_UNAME}, "/bin/uname", "-s")
	l, err := notify.NewListener(p.Listener)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ready, err := l.Wait(-1, time.Millisecond); ready != 0 || err != nil {
		t.Fatalf("before anything was called: %b, %v", ready, err)
	}
	p.Arm()
	var r notify.Request
	next(t, l, &r)
	if r.Data.Nr != unix.SYS_EXECVE || int(r.PID) != p.PID() || r.Data.Args[0] == 0 {
		t.Fatalf("first request %+v, want the execve of %d", r, p.PID())
	}
	if !l.Valid(r.ID) || l.Valid(r.ID+1) {
		t.Fatal("Valid: wrong about this request or the next one")
	}
	if err := l.Respond(r.ID, notify.Response{Continue: true}); err != nil {
		t.Fatal(err)
	}
	if l.Valid(r.ID) {
		t.Error("Valid after the answer")
	}
	if err := l.Respond(r.ID, notify.Response{Continue: true}); err == nil {
		t.Error("a second answer was taken")
	}
	next(t, l, &r)
	if r.Data.Nr != unix.SYS_UNAME {
		t.Fatalf("second request %+v", r)
	}
	if err := l.Respond(r.ID, notify.Response{Error: -int32(unix.EDOM)}); err != nil {
		t.Fatal(err)
	}
	if out := p.Wait(); p.State().Success() { // reaped first: see Gone
		t.Errorf("uname succeeded although the call was refused: %s", out)
	}
	ready, err := await(l, -1)
	if err != nil || ready&notify.Gone == 0 {
		t.Fatalf("after the end: %b, %v; want Gone", ready, err)
	}
}

func TestStopWhileWaiting(t *testing.T) {
	p := notifytest.Launch(t, []int{unix.SYS_EXECVE}, "/bin/true")
	l, err := notify.NewListener(p.Listener)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stop)
	time.AfterFunc(20*time.Millisecond, func() { _, _ = unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	if ready, err := await(l, stop); ready != notify.Stopped || err != nil {
		t.Fatalf("Wait: %b, %v; want Stopped", ready, err)
	}
}

// A caller that is killed while we think about its call is told as such, and costs nothing but the answer.
func TestKilledCaller(t *testing.T) {
	p := notifytest.Launch(t, []int{unix.SYS_EXECVE}, "/bin/true")
	l, err := notify.NewListener(p.Listener)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p.Arm()
	var r notify.Request
	next(t, l, &r)
	p.Kill()
	p.Wait()
	if l.Valid(r.ID) {
		t.Error("Valid after the caller's death")
	}
	if err := l.Respond(r.ID, notify.Response{Continue: true}); !errors.Is(err, notify.ErrVanished) {
		t.Errorf("Respond: %v, want ErrVanished", err)
	}
	if ready, err := await(l, -1); err != nil || ready&notify.Gone == 0 {
		t.Errorf("Wait: %b, %v; want Gone", ready, err)
	}
}

// Closing the listener makes notified calls fail with ENOSYS, pending ones too.
func TestCloseRefuses(t *testing.T) {
	p := notifytest.Launch(t, []int{unix.SYS_EXECVE}, "/bin/true")
	l, err := notify.NewListener(p.Listener)
	if err != nil {
		t.Fatal(err)
	}
	p.Arm()
	var r notify.Request
	next(t, l, &r)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	const want = "launcher: function not implemented\n"
	if out := p.Wait(); out != want {
		t.Errorf("the pending execve ended with %q, want %q", out, want)
	}
}
