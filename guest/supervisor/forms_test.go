// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

// structures are the kinds that show as several arguments, with the most they can be.
var structures = map[string]int{"open-how": 3, "clone-args": 2, "capset": 3, "prctl": 2}

func TestFormText(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(formText) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		name, fields := words[0], words[1:]
		if seen[name] {
			t.Errorf("%s: twice", name)
		}
		seen[name] = true
		if !seccomp.KnownSyscall(name) {
			t.Errorf("%s: no such call", name)
		}
		if len(fields) > 6 {
			t.Errorf("%s: more fields than registers", name)
		}
		shown := 0
		for i, field := range fields {
			if field == "-" {
				continue
			}
			label, kind, ok := strings.Cut(field, ":")
			if !ok || label == "" || renderers[kind] == nil && vocabulary()[kind] == nil {
				t.Errorf("%s: field %q has no known kind", name, field)
			}
			if (kind == "path" || kind == "name") && (kind == "path") != audit.PathArg(label) { // what else is peeked has other names
				t.Errorf("%s: whether %s is a path is not what readers take it for", name, label)
			}
			if strings.HasSuffix(kind, "addr") && i == 5 {
				t.Errorf("%s: no register holds the length of %s", name, label)
			}
			shown += max(structures[kind], 1)
		}
		if shown > audit.MaxArgs {
			t.Errorf("%s: %d arguments, events have %d", name, shown, audit.MaxArgs)
		}
	}
}

// Whatever a class audits, and whatever changes who a caller is, must be shown in more than registers.
func TestFormsCoverClasses(t *testing.T) {
	table := forms()
	for _, class := range seccomp.Classes() {
		for _, rule := range class.Rules {
			for _, name := range rule.Syscalls {
				nr, ok := seccomp.SyscallNumber(table.arch, name)
				if !ok {
					continue
				}
				if f := table.byNr[nr]; f == nil || len(f.fields) > 0 && f.fields[0].name == "arg0" {
					t.Errorf("class %s: %s has no form", class.Name, name)
				}
			}
		}
	}
	for _, name := range []string{"execve", "execveat", "setuid", "setresuid", "setgroups", "capset", "prctl"} {
		nr, _ := seccomp.SyscallNumber(table.arch, name)
		if !table.byNr[nr].tracks {
			t.Errorf("%s does not make the cached identity stale", name)
		}
		if want := strings.HasPrefix(name, "exec"); table.byNr[nr].exec != want {
			t.Errorf("%s: exec is %v", name, !want)
		}
	}
}

func TestVocabulary(t *testing.T) {
	for kind, terms := range vocabulary() {
		if renderers[kind] != nil {
			t.Errorf("%s is a kind of its own and a list of names", kind)
		}
		seen := map[string]bool{}
		for i, term := range terms.names {
			if term.name == "" || seen[term.name] {
				t.Errorf("%s: name %q is empty or there twice", kind, term.name)
			}
			seen[term.name] = true
			// Each name must be what its own value shows.
			got := string(terms.append(nil, term.bits))
			if kind == "open" {
				got = strings.TrimPrefix(got, "O_RDONLY|") // which has no bit
			}
			if got != term.name {
				t.Errorf("%s: value %#x of name %d shows as %q, want %q", kind, term.bits, i, got, term.name)
			}
		}
	}
}

func TestTermsAppend(t *testing.T) {
	for _, tt := range []struct {
		kind  string
		value uint64
		want  string
	}{
		{"open", 0, "O_RDONLY"},
		{"open", 0x80241, "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC"},
		{"open", 0x101000, "O_RDONLY|O_SYNC"},
		{"open", 1 << 30, "O_RDONLY|0x40000000"},
		{"access", 0, "F_OK"},
		{"access", 5, "R_OK|X_OK"},
		{"prot", 0, "PROT_NONE"},
		{"prot", 6, "PROT_WRITE|PROT_EXEC"},
		{"mmap", 0x22, "MAP_PRIVATE|MAP_ANONYMOUS"},
		{"mmap", 1 << 40, "0x10000000000"},
		{"unshare", 0x10020000, "CLONE_NEWNS|CLONE_NEWUSER"},
		{"rename", 0, "0"},
		{"domain", 2, "AF_INET"},
		{"domain", 99, "99"},
		{"ptrace", 0, "PTRACE_TRACEME"},
		{"ptrace", 0xffffffff, "-1"},
		{"ioctl", 0x5412, "TIOCSTI"},
		{"ioctl", 0x12345678, "0x12345678"},
	} {
		if tt.kind == "open" && seccomp.NativeArch() != seccomp.ArchAMD64 {
			continue // flags of open differ there; TestVocabulary has them
		}
		if got := string(vocabulary()[tt.kind].append(nil, tt.value)); got != tt.want {
			t.Errorf("%s %#x: %q, want %q", tt.kind, tt.value, got, tt.want)
		}
	}
}
