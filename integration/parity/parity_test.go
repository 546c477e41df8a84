// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/integration/parity/probe"
)

// TestTable is the cross product of what decides over a process's identity: user, no_new_privs, the
// pod's seccomp profile, capabilities. Each is run as a container's init and as an exec session.
func TestTable(t *testing.T) {
	some := []string{"CAP_NET_RAW", "CAP_CHOWN", "CAP_KILL"}
	capabilities := map[string]*specs.LinuxCapabilities{
		"default":                  capSets(default14, nil),
		"no":                       capSets(nil, nil),
		"ambient":                  capSets(default14, some, "CAP_NET_RAW", "CAP_KILL"),
		"inheritable":              capSets(default14, some),
		"effective-of-permitted":   {Bounding: default14, Permitted: default14, Effective: some},
		"permitted-beyond-ambient": {Bounding: some, Permitted: some, Effective: some[:1], Inheritable: some[:2], Ambient: some[:1]},
	}
	for _, uid := range []uint32{0, 1000, 4242} {
		for _, nnp := range []bool{false, true} {
			for _, filtered := range []bool{false, true} {
				for name, caps := range capabilities {
					title := fmt.Sprintf("uid %d, nnp %v, RuntimeDefault %v, %s capabilities", uid, nnp, filtered, name)
					t.Run(title, func(t *testing.T) {
						compare(t, func(s *specs.Spec) {
							s.Process.User.UID, s.Process.User.GID = uid, uid
							s.Process.NoNewPrivileges = nnp
							s.Process.Capabilities = caps
							if filtered {
								runtimeDefault(t, s)
							}
						})
					})
				}
			}
		}
	}
}

// TestSpecials varies what the table does not.
func TestSpecials(t *testing.T) {
	all := allCapabilities(t)
	tests := map[string]func(s *specs.Spec){
		"read-only root": func(s *specs.Spec) { s.Root.Readonly = true },
		"user namespace": userNamespace,
		"user namespace, user": func(s *specs.Spec) {
			userNamespace(s)
			s.Process.User.UID, s.Process.User.GID = 1000, 1000
		},
		"user namespace, privileged": func(s *specs.Spec) {
			userNamespace(s)
			s.Process.Capabilities = capSets(all, nil)
		},
		"privileged": func(s *specs.Spec) {
			s.Process.Capabilities = capSets(all, all)
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		},
		"privileged, ambient": func(s *specs.Spec) {
			s.Process.Capabilities = capSets(all, all, all...)
			s.Process.User.UID, s.Process.User.GID = 1000, 1000
		},
		"host pid namespace":    func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"HOME is empty":         func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "HOME=") },
		"HOME is set":           func(s *specs.Spec) { s.Process.Env = append([]string{"HOME=/elsewhere"}, s.Process.Env...) },
		"HOME of a user, empty": func(s *specs.Spec) { s.Process.User.UID = 1000; s.Process.Env = append(s.Process.Env, "HOME=") },
		"HOME of nobody known":  func(s *specs.Spec) { s.Process.User.UID = 4242 },
		"umask":                 func(s *specs.Spec) { s.Process.User.Umask = new(uint32(0o077)) },
		"no environment":        func(s *specs.Spec) { s.Process.Env = nil; s.Process.Args[0] = "/bin/probe" },
		"GO only":               func(s *specs.Spec) { s.Process.Env = []string{"GOGC=1"}; s.Process.Args[0] = "/bin/probe" },
		"equal names": func(s *specs.Spec) {
			s.Process.Env = []string{"GOGC=1", "PATH=/bin", "A=1", "GOGC=2", "A=2", "PATH=/nothing:/bin", "GOX=", "GOGC=3", "HOME=", "B="}
		},
		"path with dots and empty elements": func(s *specs.Spec) {
			s.Process.Env = []string{"PATH=/nothing:/dir/../bin//."}
		},
		"relative executable": func(s *specs.Spec) { s.Process.Args[0] = "../bin/probe" },
		"no limits":           func(s *specs.Spec) { s.Process.Rlimits = nil },
		"hard limit is soft":  func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 4096 },
		"soft is one below":   func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 4095 },
		"limits for each": func(s *specs.Spec) {
			s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CORE"}, specs.POSIXRlimit{Type: "RLIMIT_STACK", Soft: 1 << 22, Hard: 1 << 23})
		},
		"one CPU":       func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"} },
		"few pids":      func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(7))} },
		"little memory": func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(8 << 20))} },
		"scheduling":    func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5} },
		"io priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		},
		"personality":             func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX32"} },
		"group without a user":    func(s *specs.Spec) { s.Process.User.GID = 4242; s.Process.User.AdditionalGids = nil },
		"oom score untouched":     func(s *specs.Spec) { s.Process.OOMScoreAdj = nil },
		"setuid bit on the probe": func(s *specs.Spec) { s.Process.Args[0] = "/bin/setuid"; s.Process.User.UID = 1000 },
		"setuid, no_new_privs": func(s *specs.Spec) {
			s.Process.Args[0] = "/bin/setuid"
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
		"executable for root only":    func(s *specs.Spec) { s.Process.Args[0] = "/bin/roots"; s.Process.User.UID = 1000 },
		"found in PATH for root only": func(s *specs.Spec) { s.Process.Args[0] = "roots"; s.Process.User.UID = 1000 },
		"executable for root only, no_new_privs": func(s *specs.Spec) {
			s.Process.Args[0] = "/bin/roots"
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
		"capabilities absent": func(s *specs.Spec) { s.Process.Capabilities = nil },
		"capabilities absent, no_new_privs": func(s *specs.Spec) {
			s.Process.Capabilities, s.Process.NoNewPrivileges = nil, true
		},
		"capabilities absent, user": func(s *specs.Spec) { s.Process.Capabilities = nil; s.Process.User.UID = 1000 },
		"capabilities absent, user, no_new_privs": func(s *specs.Spec) {
			s.Process.Capabilities = nil
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
		"not readable by its user, no_new_privs": func(s *specs.Spec) {
			s.Process.Args[0] = "/bin/unreadable"
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
		"not readable by its user": func(s *specs.Spec) { s.Process.Args[0] = "/bin/unreadable"; s.Process.User.UID = 1000 },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) { compare(t, edit) })
	}
}

// TestInheritedCapabilities starts exec sessions that name no capabilities and so have the container's: its own, and not
// what the launcher was lent.
func TestInheritedCapabilities(t *testing.T) {
	for _, caps := range []*specs.LinuxCapabilities{capSets(default14, nil), nil} {
		for _, uids := range [][2]uint32{{0, 0}, {0, 1000}, {1000, 0}, {1000, 1000}} {
			for _, nnp := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
				t.Run(fmt.Sprintf("capabilities %v, uids %v, nnp %v", caps != nil, uids, nnp), func(t *testing.T) {
					compare(t, func(s *specs.Spec) {
						s.Process.Capabilities, s.Process.User.UID, s.Process.NoNewPrivileges = caps, uids[0], nnp[0]
					}, func(p *specs.Process) {
						p.Capabilities, p.User.UID, p.NoNewPrivileges = nil, uids[1], nnp[1]
					})
				})
			}
		}
	}
}

// TestSessionOfItsOwn starts exec sessions that ask for less, or other, than the container has. (Whatever OOM score one asks for,
// runc gives it the container's.)
func TestSessionOfItsOwn(t *testing.T) {
	tests := map[string]func(*specs.Process){
		"lower limits": func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 777, Hard: 888}, {Type: "RLIMIT_CORE", Hard: 4096}}
		},
		"no_new_privs":       func(p *specs.Process) { p.NoNewPrivileges = true },
		"fewer capabilities": func(p *specs.Process) { p.Capabilities = capSets(default14[:3], nil) },
		"no capabilities":    func(p *specs.Process) { p.Capabilities = capSets(nil, nil) },
	}
	if slices.Contains(allCapabilities(t), "CAP_SYS_RESOURCE") { // without, not even the launcher raises one
		tests["higher limits"] = func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 777, Hard: 8888}}
		}
	}
	for name, change := range tests {
		for _, uid := range []uint32{0, 1000} {
			t.Run(fmt.Sprintf("%s, uid %d", name, uid), func(t *testing.T) {
				compare(t, func(*specs.Spec) {}, func(p *specs.Process) {
					p.User.UID = uid
					change(p)
				})
			})
		}
	}
}

func userNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

// compare runs a container and an exec session in it, alone and by way of the launcher. The session's process is the
// container's, changed by session.
func compare(t *testing.T, edit func(*specs.Spec), session ...func(*specs.Process)) {
	t.Helper()
	t.Parallel()
	alone := observe(t, newWorld(t, false), edit, session)
	for _, what := range []string{"init", "exec"} {
		if len(alone[what]) < 50 {
			t.Fatalf("%s: the report of the probe has %d lines only: %v", what, len(alone[what]), alone[what])
		}
		alone[what]["status.Seccomp"], alone[what]["status.Seccomp_filters"] = "2", "1"
	}
	for _, form := range forms {
		w := newWorld(t, true)
		w.form = form
		launched := observe(t, w, edit, session)
		for _, what := range []string{"init", "exec"} {
			if diff := cmp.Diff(alone[what], launched[what]); diff != "" {
				t.Errorf("%s, %s (-alone +launched):\n%s", what, form.name, diff)
			}
		}
	}
}

// observe returns what init and an exec session report.
func observe(t *testing.T, w *world, edit func(*specs.Spec), change []func(*specs.Process)) map[string]map[string]string {
	t.Helper()
	spec := baseSpec()
	spec.Linux.CgroupsPath = w.cgroup()
	edit(spec)
	w.file("bin/setuid", read(t, probePath), 0o755|os.ModeSetuid)
	w.file("bin/unreadable", read(t, probePath), 0o711)
	w.file("bin/roots", read(t, probePath), 0o700)
	namespaced := false
	for _, ns := range spec.Linux.Namespaces {
		namespaced = namespaced || ns.Type == specs.PIDNamespace
	}
	if len(spec.Linux.UIDMappings) > 0 {
		w.must(filepath.Walk(w.bundle()+"/rootfs", func(path string, _ os.FileInfo, err error) error {
			return errors.Join(err, os.Lchown(path, int(spec.Linux.UIDMappings[0].HostID), int(spec.Linux.GIDMappings[0].HostID)))
		}))
	}
	init, err := w.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.start(init); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{"init": probe.Read(init.report(), namespaced, w.cgroup(), "CGROUP")}

	proc := *spec.Process
	proc.Args = []string{proc.Args[0], "once"}
	proc.Cwd = "/"
	for _, f := range change {
		f(&proc)
	}
	session, err := w.exec(&proc)
	if err != nil {
		t.Fatal(err)
	}
	out["exec"] = probe.Read(session.report(), false, w.cgroup(), "CGROUP")
	if status, stderr := session.wait(); status != 0 || stderr != "" {
		t.Errorf("exec session: exit status %d, stderr %q", status, stderr)
	}
	w.must(w.runc(nil, "delete", "--force", id))
	if _, stderr := init.wait(); stderr != "" {
		t.Errorf("init: stderr %q", stderr)
	}
	return out
}
