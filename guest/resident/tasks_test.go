// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/rendezvous"
)

// threads counts the resident's.
func threads(t testing.TB, h *host) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", h.resident.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// full starts as many sessions as there can be.
func full(t testing.TB, h *host) []*process {
	t.Helper()
	all := []*process{h.c.init}
	for len(all) < channel.MaxSessions {
		all = append(all, h.exec(fmt.Sprint("session-", len(all)), uint32(1000*(len(all)%3)), "workload"))
	}
	return all
}

// busy has all of them make calls at once.
func busy(t testing.TB, all []*process) {
	t.Helper()
	for _, p := range all {
		p.post(t, "opens 100 /etc/passwd")
		p.post(t, "deny 100")
	}
	for i, p := range all {
		for _, want := range []string{"100 0", "100 13"} {
			if got := p.answer(t); got != want {
				t.Errorf("session %d answers %q, want %q", i, got, want)
			}
		}
	}
}

// TestFullHouse has the most sessions there can be: no thread is made for them, the next one is told so, and memory stays
// within what the helper promises.
func TestFullHouse(t *testing.T) {
	h := stand(t, options{ordered: true})
	all := full(t, h)
	busy(t, all)
	id := h.expect("one too many", rendezvous.NewToken(), testPlan())
	h.await("an answer", func() bool { return h.of(id).failed != nil })
	if text := h.heard(id).failed.Text; !strings.Contains(text, "32 process trees") {
		t.Errorf("one too many: %q", text)
	}
	for range 20 {
		h.nextID++
		h.send(channel.Control{ID: h.nextID, Helper: true})
	}
	busy(t, all)
	if got := threads(t, h); got > channel.ResidentTasks {
		t.Errorf("%d threads, %d at the start, %d are allowed", got, h.ready.Tasks, channel.ResidentTasks)
	}
	if kb := resident(t, h); kb >= 8_000_000/1024 {
		t.Errorf("%d KiB are resident, want less than 8 MB", kb)
	}
	// A place is free when the last process of a session is gone.
	all[1].stdin.Close()
	all[1].wait(t)
	for end := time.Now().Add(patience); ; {
		token := rendezvous.NewToken()
		id := h.expect("again", token, testPlan())
		h.c.start(command(token, "workload"), h.c.caps, nil)
		if failed := h.arm(id); failed == nil {
			break
		} else if !strings.Contains(failed.Text, "process trees") || time.Now().After(end) {
			t.Fatalf("%+v", failed)
		}
	}
}

// resident returns the resident's resident set, in KiB.
func resident(t testing.TB, h *host) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", h.resident.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "Rss:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("Rss: %d KiB", kb)
			return kb
		}
	}
	t.Fatal("no Rss")
	return 0
}

// pidsCgroup makes a cgroup with a limit of tasks.
func pidsCgroup(t testing.TB, limit int) string {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} { // v1, v2
		dir := filepath.Join(mount, "metsuke-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // its last task may not be gone yet
				err := os.Remove(dir)
				if err == nil || errors.Is(err, os.ErrNotExist) {
					return
				}
				if time.Now().After(end) {
					t.Errorf("remove %s: %v", dir, err)
					return
				}
			}
		})
		if os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(limit)), 0) == nil {
			return dir
		}
	}
	t.Fatal("this test needs the pids controller below /sys/fs/cgroup, and root")
	return ""
}

// TestNoTasksLeft has a workload that uses up the container's tasks, and then needs all that the resident can do.
func TestNoTasksLeft(t *testing.T) {
	dir := pidsCgroup(t, channel.ResidentTasks+channel.MaxSessions+8)
	h := stand(t, options{ordered: true})
	enter := func(p *process) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(p.cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	enter(h.resident)
	enter(h.c.init)
	h.c.init.try(t, unix.EAGAIN, "forks")
	all := full(t, h) // these are not in the cgroup: what is tried is the resident
	busy(t, all)
	h.c.init.try(t, unix.EAGAIN, "forks")
	// The Go runtime may have made one of its own beyond those that were made beforehand.
	if got := threads(t, h); got > channel.ResidentTasks {
		t.Errorf("%d threads, %d at the start, more than %d", got, h.ready.Tasks, channel.ResidentTasks)
	}
	h.c.kill()
	h.ended()
}
