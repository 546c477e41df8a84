// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/guest/plan"
	"metsuke.dev/metsuke/internal/launchtest"
)

// What execve changes whatever runs, or names the process.
var notCompared = []string{"Pid", "Tgid", "Ngid", "PPid", "NSpid", "NStgid", "NSpgid", "NSsid",
	"VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmPTE", "VmLck", "VmSwap",
	"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "Threads", "State", "SigQ", "FDSize",
	"Cpus_allowed", "SigBlk",
	"SigPnd"} // the probe's own SIGURG, on its way: Go's preemption

// state is what can be seen of a process from outside.
type state map[string]string

func observe(t testing.TB, pid int) state {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	read := func(name string) string {
		data, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	s := state{}
	for line := range strings.Lines(read("status")) {
		name, value, _ := strings.Cut(line, ":")
		s["status "+name] = strings.TrimSpace(value)
	}
	for _, name := range notCompared {
		delete(s, "status "+name)
	}
	for _, name := range []string{"limits", "environ", "comm", "cmdline", "oom_score_adj", "personality", "timerslack_ns"} {
		s[name] = read(name)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"environ", &st); err != nil { // its owner says whether it is dumpable
		t.Fatal(err)
	}
	s["owner"] = fmt.Sprint(st.Uid, st.Gid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		link, _ := os.Readlink(dir + "fd/" + fd.Name())
		if kind, _, ok := strings.Cut(link, ":"); ok {
			link = kind // the number of a pipe is its own
		}
		if link != "anon_inode" { // the probe's own poller
			s["fd "+fd.Name()] = link
		}
	}
	for name := range strings.FieldsSeq("Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp") {
		if _, ok := s["status "+name]; !ok {
			t.Fatalf("/proc/%d/status has no %s", pid, name)
		}
	}
	return s
}

// waiting waits until the probe waits for the end of its input.
func (r *run) waiting(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if strings.Contains(r.stdout.String(), "waiting") {
			return
		}
	}
	t.Fatalf("the probe does not get to wait: stdout %q, stderr %q", r.stdout.String(), r.stderr.String())
}

// TestWorkloadIsAsWithoutUs runs a process with and without the launcher and compares all that can
// be seen of it.
func TestWorkloadIsAsWithoutUs(t *testing.T) {
	const sysAdmin, setpcap, bindService = 1 << 21, 1 << 8, 1 << 10
	user := &syscall.Credential{Uid: 4242, Gid: 4243, Groups: []uint32{7, 8}}
	tests := map[string]struct {
		plan   plan.Plan
		change func(*exec.Cmd)     // both runs
		widen  func(*exec.Cmd)     // the run with the launcher only
		want   func(s state) state // what the launcher adds
	}{
		"root": {},
		"root with no_new_privs": {
			plan: plan.Plan{NoNewPrivs: true},
			want: func(s state) state { s["status NoNewPrivs"] = "1"; return s },
		},
		"user with no_new_privs": {
			plan:   plan.Plan{NoNewPrivs: true},
			change: func(c *exec.Cmd) { c.SysProcAttr.Credential = user },
			want:   func(s state) state { s["status NoNewPrivs"] = "1"; return s },
		},
		"user with widened capabilities": {
			plan:   plan.Plan{Caps: &plan.Caps{Bounding: capBounding(t)}},
			change: func(c *exec.Cmd) { c.SysProcAttr.Credential = user },
			widen:  func(c *exec.Cmd) { c.SysProcAttr.AmbientCaps = []uintptr{21, 8} },
		},
		"user with an ambient capability beside the widened": {
			plan: plan.Plan{Caps: &plan.Caps{
				Bounding: capBounding(t), Ambient: bindService, Inheritable: bindService,
			}},
			change: func(c *exec.Cmd) {
				c.SysProcAttr.Credential, c.SysProcAttr.AmbientCaps = user, []uintptr{10}
			},
			widen: func(c *exec.Cmd) { c.SysProcAttr.AmbientCaps = []uintptr{10, 21, 8} },
		},
		"root with lowered bounding set": {
			plan: plan.Plan{Caps: &plan.Caps{Bounding: bindService | setpcap}},
			want: func(s state) state {
				for name := range strings.FieldsSeq("CapBnd CapPrm CapEff") {
					s["status "+name] = fmt.Sprintf("%016x", bindService|setpcap)
				}
				return s
			},
		},
		"oom score that the delegate lost": {
			plan: plan.Plan{OOMScoreAdj: new(123)},
			want: func(s state) state { s["oom_score_adj"] = "123\n"; return s },
		},
		"oom score for a user": {
			plan:   plan.Plan{NoNewPrivs: true, OOMScoreAdj: new(500)},
			change: func(c *exec.Cmd) { c.SysProcAttr.Credential = user },
			want: func(s state) state {
				s["status NoNewPrivs"], s["oom_score_adj"] = "1", "500\n"
				return s
			},
		},
		"every call is notified": {plan: plan.Plan{Filter: launchtest.NotifyAllFilter()}},
		"the pod's filter is logged": {
			plan: plan.Plan{FilterFlags: plan.FlagLog},
		},
		"speculation is allowed": {
			plan: plan.Plan{FilterFlags: plan.FlagSpecAllow},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			plain := &run{cmd: exec.Command("/bin/probe", "wait")}
			plain.cmd.Args[0] = "probe"
			configure := func(c *exec.Cmd) {
				c.Env = []string{"PATH=/bin", "HOME=/"}
				if test.change != nil {
					test.change(c)
				}
			}
			plain.cmd.Dir = "/"
			plain.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root}
			configure(plain.cmd)
			plain.cmd.Stdout, plain.cmd.Stderr = &plain.stdout, &plain.stderr
			var err error
			if plain.stdin, err = plain.cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			if err := plain.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			plain.waiting(t)
			want := observe(t, plain.cmd.Process.Pid)
			plain.wait(t)
			if test.want != nil {
				want = test.want(want)
			}
			want["status Seccomp"] = "2"
			want["status Seccomp_filters"] = "1"
			if test.plan.FilterFlags&plan.FlagSpecAllow == 0 {
				// The kernel's default for filtered processes (spec_store_bypass_disable=seccomp)
				// is not the launcher's doing.
				delete(want, "status Speculation_Store_Bypass")
				delete(want, "status SpeculationIndirectBranch")
			}

			if test.plan.Filter == nil {
				test.plan.Filter = launchtest.NotifyFilter()
			}
			r := b.start(t, &test.plan, []string{"probe", "wait"}, func(c *exec.Cmd) {
				configure(c)
				if test.widen != nil {
					test.widen(c)
				}
			})
			if _, err := r.arm(t, nil); err != nil {
				t.Fatal(err)
			}
			r.waiting(t)
			got := observe(t, r.cmd.Process.Pid)
			if test.plan.FilterFlags&plan.FlagSpecAllow == 0 {
				delete(got, "status Speculation_Store_Bypass")
				delete(got, "status SpeculationIndirectBranch")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the workload differs (-without us +with us):\n%s", diff)
			}
			if status := r.wait(t); status != 0 {
				t.Errorf("exit status %d, stderr %q", status, r.stderr.String())
			}
		})
	}
}

// capBounding returns this process's bounding set.
func capBounding(t testing.TB) (set uint64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "CapBnd:")
	if _, err := fmt.Sscanf(rest, "%x", &set); err != nil {
		t.Fatal(err)
	}
	return set
}
