// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"
	"strings"
	"testing"
)

// TestClasses: each rule of each class can be compiled, has its class's name, and no call twice in vain.
func TestClasses(t *testing.T) {
	var names []string
	for _, c := range Classes() {
		if c.Name == "" || c.Doc == "" || len(c.Rules) == 0 || slices.Contains(names, c.Name) {
			t.Errorf("class %q: no doc, no rules, or twice", c.Name)
		}
		names = append(names, c.Name)
		var whole []string
		for _, r := range c.Rules {
			if r.Class != c.Name || !strings.HasPrefix(r.ID, c.Name) {
				t.Errorf("class %s: rule %q of class %q", c.Name, r.ID, r.Class)
			}
			if err := r.Validate(); err != nil {
				t.Errorf("class %s: %v", c.Name, err)
			}
			for _, n := range r.Syscalls {
				if slices.Contains(whole, n) {
					t.Errorf("class %s: %s is there twice", c.Name, n)
				}
				if len(r.Args) == 0 {
					whole = append(whole, n)
				}
			}
		}
		if got, ok := KnownClass(c.Name); !ok || got.Doc != c.Doc {
			t.Errorf("class %s is not known by its name", c.Name)
		}
	}
	for _, want := range []string{"exec", "file-write", "file-delete", "net", "privilege"} {
		if !slices.Contains(names, want) {
			t.Errorf("no class %s", want)
		}
	}
}

// TestClassByRegister: what each class sees and does not see, as the kernel would hand it over.
func TestClassByRegister(t *testing.T) {
	const rdonly, wronly, rdwr, creat, trunc, appendFlag, cloexec, tmpfile = 0, 1, 2, 0x40, 0x200, 0x400, 0x80000, 0x410000
	for _, c := range []struct {
		class string
		data  *Data
		seen  bool
	}{
		{"file-write", call(t, "openat", 0, 0, rdonly|cloexec), false},
		{"file-write", call(t, "openat", 0, 0, rdonly|appendFlag), false},
		{"file-write", call(t, "openat", 0, 0, 0xffffffff00000000), false},
		{"file-write", call(t, "openat", 0, 0, wronly), true},
		{"file-write", call(t, "openat", 0, 0, rdwr|cloexec), true},
		{"file-write", call(t, "openat", 0, 0, rdonly|creat), true},
		{"file-write", call(t, "openat", 0, 0, rdonly|trunc), true},
		{"file-write", call(t, "openat", 0, 0, tmpfile|rdwr), true},
		{"file-write", call(t, "open", 0, wronly), true},
		{"file-write", call(t, "open", 0, rdonly), false},
		{"file-write", call(t, "openat2"), true},
		{"file-write", call(t, "creat"), true},
		{"file-write", call(t, "386:open", 0, rdwr), true},
		{"file-write", call(t, "write"), false},
		{"file-read", call(t, "openat", 0, 0, rdonly|cloexec), true},
		{"file-read", call(t, "openat", 0, 0, wronly), false},
		{"file-read", call(t, "openat2"), true},
		{"file-delete", call(t, "unlinkat"), true},
		{"file-delete", call(t, "rename"), true},
		{"net", call(t, "socket", 1), false},
		{"net", call(t, "socket", 2), true},
		{"net", call(t, "socket", 1<<32|1), false},
		{"net", call(t, "connect"), true},
		{"net", call(t, "sendto"), false},
		{"net", call(t, "sendto", 0, 0, 0, 0, 1<<40), true},
		{"net", call(t, "386:socketcall", 3), true},
		{"net", call(t, "386:socketcall", 11), true}, // its address is behind a pointer
		{"net", call(t, "386:socketcall", 10), false},
		{"fork", call(t, "clone", 17), true},
		{"fork", call(t, "clone", 0x3d0f00), false}, // a thread
		{"fork", call(t, "clone3"), true},
		{"fork", call(t, "vfork"), true},
		{"namespace", call(t, "clone", 17), false},
		{"namespace", call(t, "clone", 0x10000000|17), true},
		{"namespace", call(t, "clone", 0x40000000), true},
		{"privilege", call(t, "setresuid"), true},
		{"privilege", call(t, "prctl", 15), false},
		{"privilege", call(t, "prctl", 47), true},
		{"privilege", call(t, "prctl", 5<<32|47), true},
		{"privilege", call(t, "seccomp", 2), false},
		{"memory", call(t, "mmap", 0, 0, 7), true},
		{"memory", call(t, "mmap", 0, 0, 5), false},
		{"memory", call(t, "386:mmap"), true}, // its arguments are behind a pointer
		{"process", call(t, "kill"), true},
		{"process", call(t, "prlimit64", 0), false},
		{"process", call(t, "prlimit64", 1), true},
		{"ipc", call(t, "386:ipc", 1<<16|21), true},
	} {
		class, ok := KnownClass(c.class)
		if !ok {
			t.Fatalf("no class %s", c.class)
		}
		prog := mustCompile(t, Policy{Native: ArchAMD64, Audit: class.Rules})
		dec, ret := prog.Decide(c.data), newVM(t, prog.Filter()).run(t, c.data)
		// what is tracked is notified in any case
		seen := dec.Action == ActionAudit && !dec.Silent
		if seen != c.seen || seen && (dec.Class != c.class || ret != retUserNotif) || !seen && !dec.Silent && ret != retAllow {
			t.Errorf("%s: %s %x: %+v, filter %s", c.class, describe(c.data), c.data.Args, dec, returnName(ret))
		}
	}
}

// TestTracking: every program that decides anything notifies these, silently.
func TestTracking(t *testing.T) {
	prog := mustCompile(t, Policy{Native: ArchAMD64, Layers: []Layer{{Name: "l", Architectures: []Arch{Arch386}}}})
	m := newVM(t, prog.Filter())
	for _, name := range []string{"execve", "execveat", "setuid", "setgid", "setresuid", "setresgid", "setreuid", "setregid", "setfsuid",
		"setfsgid", "setgroups", "capset", "386:execve", "386:setuid32"} {
		d := call(t, name)
		if dec := prog.Decide(d); !dec.Silent || dec.Action != ActionAudit || m.run(t, d) != retUserNotif {
			t.Errorf("%s: %+v", name, dec)
		}
	}
	if dec := prog.Decide(call(t, "prctl", 15)); !dec.Silent {
		t.Errorf("PR_SET_NAME: %+v", dec)
	}
	if dec := prog.Decide(call(t, "prctl", 16)); dec != (Decision{}) {
		t.Errorf("PR_GET_NAME: %+v", dec)
	}
}
