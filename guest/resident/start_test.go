// SPDX-License-Identifier: Apache-2.0

package resident_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/channel"
	"metsuke.dev/metsuke/guest/private"
	"metsuke.dev/metsuke/guest/rendezvous"
	"metsuke.dev/metsuke/internal/launchtest"
)

// TestNoStart has a resident that is told nothing sensible, or whose environment steers the Go runtime.
func TestNoStart(t *testing.T) {
	for name, env := range map[string][]string{"nothing": nil, "GODEBUG": {"A=1", "GODEBUG=inittrace=1"}, "GOGC": {"GOGC=1"}, "GOTRACEBACK": {"GOTRACEBACK=crash"}} {
		cmd := exec.Command(helperPath, "audit")
		cmd.Env = append([]string{}, env...)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != 125 || !strings.Contains(string(out), "metsuke-guest: audit: ") ||
			env != nil && !strings.Contains(string(out), "environment has "+name) {
			t.Errorf("%s: exit status %d, output %q", name, status, out)
		}
	}
}

// TestNotAsMounted has containers whose directory is not what the rewrite asked for, or that lack something.
func TestNotAsMounted(t *testing.T) {
	wait := []string{private.Guest, "run", "token", "--", "workload"}
	tests := []struct {
		name    string
		prepare func(root string) error
		start   func(*channel.Start)
		caps    uint64
		fatal   string
	}{
		{"another file in it", func(root string) error { return os.WriteFile(root+private.Dir+"/else", nil, 0o600) }, nil, 0, `"else" "guest" "sock"`},
		{"helper can be written to", func(root string) error {
			return unix.Mount("", root+private.Guest, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}, nil, 0, "guest: it is not mounted read-only"},
		{"no CAP_SYS_ADMIN", nil, nil, addedCaps &^ bits(unix.CAP_SYS_ADMIN), "read-only: operation not permitted"},
		{"no cgroup", nil, func(s *channel.Start) { s.Cgroup = true }, 0, private.Cgroup},
		{"settings without a cgroup", nil, func(s *channel.Start) { s.Settings = []channel.Setting{{File: "pids.max", Value: "1"}} }, 0, "no cgroup"},
		{"no program", nil, func(s *channel.Start) { s.Program = []byte("x") }, 0, "seccomp: program"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newContainer(t, test.prepare, wait...)
			h := newHost(t, c, options{start: test.start, caps: test.caps})
			if text := h.ended(); !strings.Contains(text, test.fatal) {
				t.Errorf("last words %q, want %q", text, test.fatal)
			}
			if status := h.resident.wait(t); status != 1 {
				t.Errorf("exit status %d", status)
			}
		})
	}
	for name, mounts := range map[string]struct {
		change func() error
		fatal  string
	}{
		"the proc of another pid namespace": {func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }, "/proc"},
		"a file over one of a process": {func() error { return unix.Mount("/proc/version", "/proc/1/status", "", unix.MS_BIND, "") },
			"something is mounted at /proc/1/status"},
		"a directory over that of a process": {func() error { return unix.Mount("/bin", "/proc/1", "", unix.MS_BIND, "") },
			"something is mounted at /proc/1,"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, nil, wait...)
			h := newHost(t, c, options{change: mounts.change})
			if text := h.ended(); !strings.Contains(text, mounts.fatal) {
				t.Errorf("last words %q", text)
			}
		})
	}
}

// TestNoReadv is a guest kernel without process_vm_readv(2), as Kata's; the workload is of another user.
func TestNoReadv(t *testing.T) {
	h := stand(t, options{ordered: true, change: func() error { return launchtest.RefuseHere(unix.SYS_PROCESS_VM_READV, unix.ENOSYS) }})
	for uid := range uint32(3) {
		p := h.exec(fmt.Sprint("user-", uid), uid, "workload")
		for i := range 3 { // the first call of a thread is read in another way than later ones
			path := fmt.Sprintf("/user/%d/%d", uid, i)
			p.ask(t, "opens 1 %s", path)
			if h.calls("openat", path) != 1 {
				t.Errorf("%s is in no event; the last is %+v", path, h.last("openat"))
			}
		}
		if e := h.last("openat"); e.Exe != "/bin/workload" || e.UID != uid || e.Comm != "workload" {
			t.Errorf("the last event is %+v", e)
		}
	}
}

// TestCgroup has limits to apply in the container; the mount is gone before the workload runs.
func TestCgroup(t *testing.T) {
	mounted := false
	token := rendezvous.NewToken()
	c := newContainer(t, func(root string) error {
		if err := os.Mkdir(root+private.Cgroup, 0o755); err != nil {
			return err
		}
		mounted = true
		return unix.Mount("cgroup", root+private.Cgroup, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}, private.Guest, "run", token, "--", "workload")
	if !mounted {
		t.Fatal("not prepared")
	}
	h := standing(t, c, options{start: func(s *channel.Start) {
		s.Cgroup, s.Watch = true, []string{"pids.max", "nothing.max"}
		s.Settings = []channel.Setting{{File: "nothing.max", Value: "7"}, {File: "neither.max", Value: "7"}}
	}})
	id := h.expect("", token, testPlan())
	if failed := h.arm(id); failed != nil {
		t.Fatal(failed)
	}
	// What the kernel did not take is told with each answer, though nobody asks for that file.
	h.send(channel.Control{ID: 100, Settings: []channel.Setting{{File: "nothing.max", Value: "8"}}})
	h.send(channel.Control{ID: 101})
	h.await("both reports", func() bool { return h.of(101).report != nil })
	for answer, values := range map[string][]channel.Value{"7": h.heard(id).found.Values, "8": h.heard(100).report.Values} {
		if len(values) != 3 || values[0].File != "pids.max" || values[1].File != "nothing.max" || values[2].File != "neither.max" ||
			!strings.Contains(values[1].Problem, fmt.Sprintf("write %q to nothing.max", answer)) || !strings.Contains(values[2].Problem, `write "7" to neither.max`) {
			t.Errorf("after setting %s the values are %+v", answer, values)
		}
	}
	for _, id := range []uint64{100, 101} {
		if r := h.heard(id).report; r.Problem != "" || len(r.Values) != 3 {
			t.Errorf("report %+v", r)
		}
	}
	h.c.init.try(t, unix.ENOENT, "access %s", private.Cgroup)
	h.c.init.try(t, unix.EPERM, "mount cgroup2 /gone")
	h.c.init.try(t, unix.EACCES, "link /proc/%d/fd/0", h.resident.pid(t))
}
