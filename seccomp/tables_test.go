// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestTables: the generated tables say what syscalls.tsv says, in both directions.
func TestTables(t *testing.T) {
	raw, err := os.ReadFile("syscalls.tsv")
	if err != nil {
		t.Fatal(err)
	}
	arches := []Arch{ArchAMD64, Arch386, ArchX32, ArchARM64, ArchARM}
	count := map[Arch]int{}
	lines := 0
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		f := strings.Split(strings.TrimSpace(line), "\t")
		if !KnownSyscall(f[0]) {
			t.Errorf("%s is not known", f[0])
		}
		for i, a := range arches {
			nr, ok := SyscallNumber(a, f[0])
			if f[1+i] == "-" {
				if ok {
					t.Errorf("%s on %s: %d, want none", f[0], a.Name(), nr)
				}
				continue
			}
			count[a]++
			want, err := strconv.Atoi(f[1+i])
			if err != nil {
				t.Fatal(err)
			}
			if a == ArchX32 {
				want |= x32Bit
			}
			if name, named := SyscallName(a.audit(), want); !ok || nr != want || !named || name != f[0] {
				t.Errorf("%s on %s: %d (%v), back %q; want %d", f[0], a.Name(), nr, ok, name, want)
			}
		}
	}
	if lines != syscallCount {
		t.Errorf("%d lines, %d names: run go generate", lines, syscallCount)
	}
	for _, a := range arches {
		n, last := 0, -1
		EachSyscall(a, func(nr int, _ string) bool {
			if nr <= last {
				t.Errorf("%s: %d after %d", a.Name(), nr, last)
			}
			n, last = n+1, nr
			return true
		})
		if n != count[a] {
			t.Errorf("%s: %d calls, want %d", a.Name(), n, count[a])
		}
	}
}

// TestKnownNumbers: some that everybody knows, the newest, and the odd ones.
func TestKnownNumbers(t *testing.T) {
	for _, c := range []struct {
		arch Arch
		name string
		nr   int
	}{
		{ArchAMD64, "read", 0}, {ArchAMD64, "execve", 59}, {ArchAMD64, "openat2", 437}, {ArchAMD64, "rseq_slice_yield", 471},
		{Arch386, "execve", 11}, {Arch386, "socketcall", 102}, {Arch386, "socket", 359},
		{ArchX32, "execve", 0x40000000 | 520}, {ArchX32, "read", 0x40000000},
		{ArchARM64, "execve", 221}, {ArchARM64, "openat", 56}, {ArchARM, "set_tls", 0xf0005}, {ArchARM, "open", 5},
	} {
		if nr, ok := SyscallNumber(c.arch, c.name); !ok || nr != c.nr {
			t.Errorf("%s on %s: %d, want %d", c.name, c.arch.Name(), nr, c.nr)
		}
	}
	for _, c := range []struct {
		arch Arch
		nr   int
	}{{ArchAMD64, -1}, {ArchAMD64, 400}, {ArchAMD64, 0x7fffffff}, {ArchARM, 0xf0007}, {0x1234, 0}, {ArchARM64, 0xffff}} {
		if name, ok := SyscallName(c.arch, c.nr); ok {
			t.Errorf("number %#x on %s is %s", c.nr, c.arch.Name(), name)
		}
	}
}

func TestWidths(t *testing.T) {
	for _, c := range []struct {
		name string
		want string // arguments read as 32 bits
	}{{"socket", "012"}, {"openat", "023"}, {"munmap", ""}, {"prctl", "0"}, {"clone", "0"}, {"unshare", ""}, {"ptrace", ""}, {"kill", "01"}, {"no_such_call", ""}} {
		got := ""
		for i := range uint8(6) {
			if reads32(ArchAMD64, nameIndex(c.name), i) {
				got += strconv.Itoa(int(i))
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSuggestSyscall(t *testing.T) {
	for name, want := range map[string]string{
		"opnat": "openat", "exevce": "execve", "ptrce": "ptrace", "io_uring_setpu": "io_uring_setup", "mout": "mount",
		"": "", "completely_different_thing": "", strings.Repeat("a", 1000): "",
	} {
		if got := SuggestSyscall(name); got != want {
			t.Errorf("%q: suggested %q, want %q", name, got, want)
		}
	}
}

func TestVocabulary(t *testing.T) {
	for _, k := range KnownArches() {
		for _, name := range []string{k.Name, k.Go} {
			if a, err := ParseArch(name); err != nil || a != k.Arch || a.Name() != k.Name {
				t.Errorf("%s: %v, %v", name, a, err)
			}
		}
		if k.Native != (k.Arch.family() != nil) {
			t.Errorf("%s: native %v", k.Name, k.Native)
		}
	}
	for _, k := range KnownOps() {
		for _, name := range []string{string(k.Op), string(k.OCI)} {
			if op, err := ParseOp(name); err != nil || op != k.Op {
				t.Errorf("%s: %v, %v", name, op, err)
			}
		}
	}
	for i, k := range KnownActions() {
		if k.Action != Action(i) || k.Action.String() != k.Name {
			t.Errorf("%s is at %d", k.Name, i)
		}
	}
	for _, bad := range []string{"", "SCMP_ARCH_MIPS", "AMD64"} {
		if _, err := ParseArch(bad); err == nil || !strings.Contains(err.Error(), "SCMP_ARCH_X86_64") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ParseOp("equals"); err == nil || !strings.Contains(err.Error(), "masked_eq") {
		t.Errorf("equals: %v", err)
	}
	if a := NativeArch(); a != 0 && a.family() == nil {
		t.Errorf("the native %s cannot be compiled for", a.Name())
	}
}
