// SPDX-License-Identifier: Apache-2.0

package rendezvous

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"metsuke.dev/metsuke/internal/launchtest"
)

// The first thread, of which /proc/PID/status tells, must not be one that launchtest.NewListener puts under its filter.
func init() { runtime.LockOSThread() }

// listenInside makes the Rendezvous of a supervisor in the container, for which this executable is the helper.
func listenInside(t testing.TB, path string) *Rendezvous {
	t.Helper()
	exe, err := IdentifyFile(exePath(self))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ListenInside(path, exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestInside has launchers that nobody confirms, and workload processes that know the token and run the helper.
func TestInside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	r := listenInside(t, path)
	honest := func(t *testing.T, p *Pending, token string) {
		c := dial(t, path)
		c.hello(token)
		c.plan()
		c.listener(listenerFrame, int(launchtest.NewListener(t).Fd()))
		l, err := p.Await(deadline(t))
		if err != nil {
			t.Fatalf("an honest launcher is refused: %v", err)
		}
		if l.PID != self {
			t.Errorf("pid %d, want %d", l.PID, self)
		}
		l.Listener.Close()
		l.Close()
	}

	t.Run("alone", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		honest(t, p, token)
	})
	t.Run("after filtered ones", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		for range 2 * maxCandidates {
			other := connect(t, path, "METSUKE_TEST_FILTER=1")
			if answer := other.send(t, helloFrame(t, token)); answer != "eof" {
				t.Errorf("a process under a filter gets %s bytes of the plan", answer)
			}
			other.end()
		}
		honest(t, p, token)
	})
	t.Run("after ones of many groups", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		for groups, want := range map[uint32]string{maxGroups + 1: "eof", maxGroups: "8"} {
			other := connectAs(t, path, &syscall.Credential{Groups: groupsUpTo(groups)})
			if answer := other.send(t, helloFrame(t, token)); (answer == "eof") != (want == "eof") {
				t.Errorf("a process of %d groups gets %s, want %s", groups, answer, want)
			}
			other.end()
			if want != "eof" {
				if _, err := p.Await(deadline(t)); !errors.Is(err, ErrDied) {
					t.Errorf("Await: %v, want %v", err, ErrDied)
				}
				p, token = expect(t, r)
			}
		}
		honest(t, p, token)
	})
	t.Run("before it is expected", func(t *testing.T) {
		checkLeaks(t)
		token := NewToken()
		c := dial(t, path)
		c.hello(token)
		for range maxStrangers + 4 { // the workload's, which do not push it out
			other := connect(t, path, "METSUKE_TEST_FILTER=1")
			defer other.end()
		}
		p, err := r.Expect(Spec{Token: token, Plan: testPlan})
		if err != nil {
			t.Fatal(err)
		}
		c.plan()
		p.Cancel()
		c.refused()
	})
	t.Run("never expected", func(t *testing.T) {
		checkLeaks(t)
		r := listenInside(t, path+"2")
		c := dial(t, path+"2")
		c.hello(NewToken())
		time.Sleep(20 * time.Millisecond) // it waits by then, or is about to
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		c.refused()
	})
	t.Run("another executable", func(t *testing.T) {
		checkLeaks(t)
		r, err := ListenInside(path+"3", FileID{Dev: 1, Ino: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p, token := expect(t, r)
		c := dial(t, path+"3")
		c.hello(token)
		c.refused()
		p.Cancel()
	})
	t.Run("before a second", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		c := dial(t, path)
		c.hello(token)
		c.plan()
		if answer := connect(t, path).send(t, helloFrame(t, token)); answer != "eof" {
			t.Errorf("a second process gets %s bytes of the plan", answer)
		}
		if err := p.Confirm(self); err != nil {
			t.Errorf("Confirm of the one that it is: %v", err)
		}
		p.Cancel()
	})
	t.Run("dies with its plan", func(t *testing.T) {
		checkLeaks(t)
		p, token := expect(t, r)
		other := connect(t, path)
		if answer := other.send(t, helloFrame(t, token)); answer == "eof" {
			t.Fatal("no plan")
		}
		other.end()
		if _, err := p.Await(deadline(t)); !errors.Is(err, ErrDied) {
			t.Errorf("Await: %v, want %v", err, ErrDied)
		}
	})
}

func groupsUpTo(n uint32) (groups []uint32) {
	for i := range n {
		groups = append(groups, i+1)
	}
	return groups
}

func TestParseStatus(t *testing.T) {
	const good = "Name:\ta\\nSeccomp:\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t \nNoNewPrivs:\t1\nSeccomp:\t2\n"
	tests := []struct {
		text string
		want Status
		err  string
	}{
		{good, Status{UID: 1, GID: 5, Seccomp: 2, NoNewPrivs: true}, ""},
		{good + "Seccomp_filters:\t3\n", Status{UID: 1, GID: 5, Seccomp: 2, Filters: 3, NoNewPrivs: true}, ""},
		{good + "Seccomp:\t0\n", Status{UID: 1, GID: 5, Seccomp: 2, NoNewPrivs: true}, ""}, // the first counts
		{strings.Replace(good, "Gid", "gid", 1), Status{}, "no line Gid"},
		{strings.Replace(good, "Seccomp:\t2", "Seccomp: 2", 1), Status{}, "no line Seccomp"},
		{strings.Replace(good, "Uid:\t1", "Uid:\t-1", 1), Status{}, "Uid: "},
		{strings.Replace(good, "Uid:\t1", "Uid:\t4294967296", 1), Status{}, "Uid: "},
		{"", Status{}, "no line"},
	}
	for _, tt := range tests {
		got, err := parseStatus([]byte(tt.text))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %+v, %v; want %+v, %q", tt.text, got, err, tt.want, tt.err)
		}
	}
	if got, err := ReadStatus(self); err != nil || got.UID != uint32(os.Getuid()) {
		t.Errorf("of ourselves: %+v, %v", got, err)
	}
	if _, err := ReadStatus(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
}
