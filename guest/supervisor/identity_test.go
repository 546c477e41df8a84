// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inState tells whether a process waits in a kernel function whose name holds s.
func inState(pid int, s string) bool {
	wchan, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return strings.Contains(string(wchan), s)
}

const reuseEnv = "METSUKE_TEST_PIDNS"

// TestNumbersAreReused runs the storms in a pid namespace with so few numbers that each is given away again and
// again, and the supervisor in it: no event may show the identity of a number's earlier owner.
func TestNumbersAreReused(t *testing.T) {
	if os.Getenv(reuseEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestNumbersAreReused$", "-test.v")
		cmd.Env = append(os.Environ(), reuseEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestNumbersAreReused") {
			t.Fatalf("in the namespace: %v\n%s", err, out)
		}
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, "numbers") {
				t.Log(strings.TrimSpace(line))
			}
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	// pid_max belongs to the namespace since Linux 6.14; before, the test changes it for nobody.
	var release unix.Utsname
	if err := unix.Uname(&release); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(release.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if major < 6 || major == 6 && minor < 14 {
		fmt.Println("--- PASS: TestNumbersAreReused (not: pid_max is the whole machine's before Linux 6.14; numbers are not reused)")
		return
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0); err != nil {
		t.Fatal(err)
	}
	const n = 3000
	r := rules{unix.SYS_OPENAT: audited("file-read")}
	for mode, prefix := range map[string]string{"forkstorm": "v", "threadstorm": "t"} {
		s := newStand(t, Options{Program: r})
		p, session := s.run(t, r, "", mode, fmt.Sprint(n), "/storm")
		if out := finish(t, p, session); out != "bad=0\n" {
			t.Fatalf("victim: %q", out)
		}
		opens := s.sink.calls("openat")
		checkStorm(t, opens, n, prefix)
		owners := map[uint32]int{}
		for _, ev := range opens {
			owners[ev.Syscall.TID]++
		}
		if len(owners) > 400 {
			t.Fatalf("%d numbers were used: none was used again", len(owners))
		}
		t.Logf("%s: %d calls from %d numbers", mode, n, len(owners))
	}
}

// sleeper is a process to look at, until the test ends.
func sleeper(t *testing.T) (uint32, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(victim(t), "wait", "0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	return uint32(cmd.Process.Pid), cmd
}

func newTestIdentities(t *testing.T) (*identities, *atomic.Int64) {
	t.Helper()
	proc, err := openProcFS()
	if err != nil {
		t.Fatal(err)
	}
	budget := &atomic.Int64{}
	c := newIdentities(proc, budget)
	t.Cleanup(func() {
		c.close()
		proc.close()
		if budget.Load() != 0 {
			t.Errorf("%d descriptors left", budget.Load())
		}
	})
	return &c, budget
}

func TestIdentityCache(t *testing.T) {
	c, _ := newTestIdentities(t)
	pid, cmd := sleeper(t)
	now := time.Now()
	reads := func() uint64 { return c.proc.reads.Swap(0) }
	get := func(at time.Time) *identity {
		t.Helper()
		return c.get(pid, at)
	}
	eventually(t, "the process has exec'd", func() bool { id := get(now); c.drop(pid); return id != nil && id.comm == "victim" })
	reads()
	if get(now); reads() != 1 {
		t.Error("not read at first")
	}
	if id := get(now.Add(identityTTL / 2)); reads() != 0 || id.pid != pid || id.ppid != uint32(os.Getpid()) || id.exe != victim(t) {
		t.Errorf("not cached, or wrong: %+v", id)
	}
	if get(now.Add(identityTTL)); reads() != 1 {
		t.Error("older than it may be")
	}
	c.changes(pid, &form{})
	if get(now.Add(identityTTL)); reads() != 0 {
		t.Error("a call that changes nothing made it stale")
	}
	c.changes(pid, &form{tracks: true})
	if get(now.Add(identityTTL)); reads() != 1 {
		t.Error("not stale after a change")
	}
	if c.get(0, now) != nil || c.get(1<<30, now) != nil {
		t.Error("an identity of nobody")
	}
	cmd.Process.Kill()
	_ = cmd.Wait()
	if id := get(now.Add(identityTTL)); id != nil {
		t.Errorf("an identity of a dead process: %+v", id)
	}
}

func TestIdentityCacheIsBounded(t *testing.T) {
	c, budget := newTestIdentities(t)
	var pids []uint32
	for range 20 {
		pid, _ := sleeper(t)
		pids = append(pids, pid)
	}
	budget.Store(maxWatched - 5) // other sessions'
	for range 3 {
		for _, pid := range pids {
			if id := c.get(pid, time.Now()); id == nil || id.tid != pid {
				t.Fatalf("identity of %d: %+v", pid, id)
			}
		}
	}
	if len(c.byTID) != 5 {
		t.Errorf("%d entries, room for 5", len(c.byTID))
	}
	c.close()
	budget.Store(maxWatched)
	if id := c.get(pids[0], time.Now()); id == nil || id.tid != pids[0] || len(c.byTID) != 0 {
		t.Errorf("without room: %+v, %d entries", id, len(c.byTID))
	}
	budget.Store(0)
}

// otherThread returns the id of a thread of ours that is not the leader, and what ends it.
func otherThread() (tid uint32, stop func()) {
	end := make(chan struct{})
	for tid = uint32(os.Getpid()); tid == uint32(os.Getpid()); {
		tids := make(chan uint32)
		go func() { // one on the main thread keeps it until the end, so the next one gets another
			runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
			tids <- uint32(unix.Gettid())
			<-end
		}()
		tid = <-tids
	}
	return tid, func() { close(end) }
}

// After a thread's exec its leader is another program, even if it did not call meanwhile.
func TestExecMakesLeaderStale(t *testing.T) {
	c, _ := newTestIdentities(t)
	tid, stop := otherThread()
	pid, now := uint32(os.Getpid()), time.Now()
	c.get(pid, now)
	c.get(tid, now)
	c.changes(tid, &form{tracks: true, exec: true})
	stop()
	eventually(t, "the thread has ended", func() bool { return errors.Is(unix.Tgkill(int(pid), int(tid), 0), unix.ESRCH) })
	c.proc.reads.Store(0)
	if c.get(pid, now); c.proc.reads.Load() != 1 {
		t.Error("the leader's identity is that of before the exec")
	}
}

// While a thread's exec may be under way its leader is not cached.
func TestExecUnderWay(t *testing.T) {
	c, _ := newTestIdentities(t)
	pid := uint32(os.Getpid())
	tid, stop := otherThread()
	now := time.Now()
	exec := &form{tracks: true, exec: true}
	c.get(pid, now)
	c.get(tid, now)
	c.changes(tid, exec)
	c.proc.reads.Store(0)
	for range 3 {
		if id := c.get(pid, now); id == nil || id.pid != pid {
			t.Fatal("no identity")
		}
	}
	if n := c.proc.reads.Load(); n != 3 {
		t.Errorf("read %d times of 3 while an exec is under way", n)
	}
	stop()
	eventually(t, "the thread has ended", func() bool { return errors.Is(unix.Tgkill(int(pid), int(tid), 0), unix.ESRCH) })
	c.get(pid, now)
	c.proc.reads.Store(0)
	if c.get(pid, now); c.proc.reads.Load() != 0 || len(c.execs) != 0 {
		t.Errorf("read again after the thread's end; %d execs", len(c.execs))
	}
	// An exec that failed ends with the thread's next call; too many at once end caching of leaders.
	c.lastPID = pid
	c.changes(1<<30, exec)
	c.calledAgain(1 << 30)
	if len(c.execs) != 0 {
		t.Error("a failed exec is not forgotten")
	}
	for i := range uint32(maxExecing + 10) {
		c.lastPID = pid
		c.changes(1<<30+i, exec)
	}
	if len(c.execs) > maxExecing || !c.overflow {
		t.Errorf("%d execs are kept", len(c.execs))
	}
}

func TestParseStatus(t *testing.T) {
	const good = "Name:\ta b\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t12\nNgid:\t0\nPid:\t13\nPPid:\t1\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t\n"
	for name, tt := range map[string]struct {
		status string
		want   identity
		ok     bool
	}{
		"good":       {good, identity{pid: 12, ppid: 1, uid: 2, gid: 6, comm: "a b"}, true},
		"escaped":    {strings.Replace(good, "a b", `\\n\n\\`, 1), identity{pid: 12, ppid: 1, uid: 2, gid: 6, comm: "\\n\n\\"}, true},
		"empty name": {strings.Replace(good, "a b", ``, 1), identity{pid: 12, ppid: 1, uid: 2, gid: 6}, true},
		"cut":        {good[:70], identity{}, false},
		"cut number": {strings.Split(good, "\t7")[0], identity{}, false},
		"no number":  {strings.Replace(good, "Tgid:\t12", "Tgid:\tx", 1), identity{}, false},
		"too large":  {strings.Replace(good, "Tgid:\t12", "Tgid:\t4294967296", 1), identity{}, false},
		"empty":      {"", identity{}, false},
	} {
		var id identity
		if ok := parseStatus([]byte(tt.status), &id); ok != tt.ok || ok && id != tt.want {
			t.Errorf("%s: %+v, %v", name, id, ok)
		}
	}
}
