// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/seccomp"
)

func TestHostileExec(t *testing.T) {
	r := rules{unix.SYS_EXECVE: audited("exec")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "exec-hostile")
	if out := finish(t, p, session); out != "done\n" {
		t.Fatalf("victim: %q", out)
	}
	execs := s.sink.calls("execve")[1:]
	var got []string
	for _, ev := range execs {
		for _, a := range ev.Syscall.Args {
			value := a.Value
			if len(value) > 60 {
				value = fmt.Sprintf("%s… %d bytes", value[:9], len(value))
			}
			got = append(got, fmt.Sprintf("%s %s %s %v", a.Name, value, a.Evidence, a.Truncated))
		}
	}
	want := []string{
		"path /nowhere peeked false", "argv fine ? peeked true",
		"path /nowhere peeked false", "argv 0xdead000 (unreadable) register false",
		"path /nowhere peeked false", "argv 0xffffffffffffffff (unreadable) register false",
		"path /nowhere peeked false", "argv NULL register false",
		"path 0xdead000 (unreadable) register false", "argv fine ? peeked true",
		"path '''''''''… 4096 bytes peeked true", `argv ''\'''\''… 4094 bytes peeked true`,
		"path /nowhere peeked false", `argv 'a b' 'it'\''s' '' '` + "\xff\xfe" + `' plain-word peeked false`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("arguments\n%s\nwant\n%s", g, w)
	}
}

// Paths at the end of what is mapped.
func TestPathsAtEdge(t *testing.T) {
	for name, noReadv := range map[string]bool{"process_vm_readv": false, "proc mem": true} {
		t.Run(name, func(t *testing.T) {
			r := rules{unix.SYS_OPENAT: audited("file-read")}
			s := newStand(t, Options{Program: r})
			s.proc.noReadv.Store(noReadv)
			p, session := s.run(t, r, "", "edge")
			if out := finish(t, p, session); out != "done\n" {
				t.Fatalf("victim: %q", out)
			}
			opens := s.sink.calls("openat")
			if len(opens) != 4 {
				t.Fatalf("%d opens", len(opens))
			}
			for i, want := range []audit.Arg{
				{Name: "path", Value: "/end", Evidence: audit.EvidencePeeked},
				{Name: "path", Value: "/noend", Evidence: audit.EvidencePeeked, Truncated: true},
				{Name: "path", Value: "(unreadable)", Evidence: audit.EvidenceRegister},
				{Name: "path", Value: "NULL", Evidence: audit.EvidenceRegister},
			} {
				got := argOf(opens[i], "path")
				if _, what, ok := strings.Cut(got.Value, " "); ok && strings.HasPrefix(got.Value, "0x") {
					got.Value = what
				}
				if got != want {
					t.Errorf("open %d: %+v, want %+v", i, got, want)
				}
			}
			if s.dontReadv(t) != noReadv {
				t.Error("the other way was used")
			}
		})
	}
}

func (s *stand) dontReadv(t *testing.T) bool { t.Helper(); return s.proc.noReadv.Load() }

func TestConnect(t *testing.T) {
	r := rules{unix.SYS_CONNECT: audited("net"), unix.SYS_SOCKET: audited("net"), unix.SYS_SENDMSG: audited("net")}
	s := newStand(t, Options{Program: r})
	p, session := s.run(t, r, "", "connect")
	if out := finish(t, p, session); out != "done\n" {
		t.Fatalf("victim: %q", out)
	}
	var got []string
	for _, ev := range append(s.sink.calls("connect"), s.sink.calls("sendmsg")...) {
		got = append(got, argOf(ev, "addr").Value)
	}
	want := []string{"127.0.0.1:9", "unix:/nowhere.sock", "unix-abstract:nowhere", "0xdead000 (unreadable)", "127.0.0.1:9"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if sockets := s.sink.calls("socket"); fmt.Sprint(sockets[1].Syscall.Args) !=
		"[{domain AF_UNIX register false} {type SOCK_STREAM|SOCK_CLOEXEC register false} {protocol 0 register false}]" {
		t.Errorf("socket %v", sockets[1].Syscall.Args)
	}
}

func sockaddr(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int: // family, in the machine's order
			b = binary.NativeEndian.AppendUint16(b, uint16(p))
		case string:
			b = append(b, p...)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, p)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, p)
		}
	}
	return b
}

func TestAppendSockaddr(t *testing.T) {
	v6 := string([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	for _, tt := range []struct {
		raw  []byte
		want string
	}{
		{sockaddr(unix.AF_INET, uint16(443), "\x01\x02\x03\x04", "\x00\x00\x00\x00"), "1.2.3.4:443"},
		{sockaddr(unix.AF_INET, uint16(443), "\x01\x02"), "AF_INET:01bb0102"},
		{sockaddr(unix.AF_INET6, uint16(53), uint32(0), v6, uint32(0)), "[2001:db8::1]:53"},
		{sockaddr(unix.AF_INET6, uint16(53), uint32(0), v6, uint32(3)), "[2001:db8::1%3]:53"},
		{sockaddr(unix.AF_INET6, uint16(53), uint32(0), strings.Repeat("\x00", 10)+"\xff\xff\x7f\x00\x00\x01"), "[::ffff:127.0.0.1]:53"},
		{sockaddr(unix.AF_UNIX), "unix:"},
		{sockaddr(unix.AF_UNIX, "/run/x\x00garbage"), "unix:/run/x"},
		{sockaddr(unix.AF_UNIX, "\x00a\x00b"), "unix-abstract:a\x00b"},
		{sockaddr(unix.AF_NETLINK, uint16(0), uint32(7), uint32(1)), "netlink:pid=7,groups=0x1"},
		{sockaddr(unix.AF_VSOCK, uint16(0), uint32(1024), uint32(2)), "vsock:2:1024"},
		{sockaddr(unix.AF_PACKET, uint16(0x0800), uint32(2)), "packet:ifindex=2,protocol=0x800"},
		{sockaddr(unix.AF_UNSPEC, "\x00\x00"), "AF_UNSPEC:0000"},
		{sockaddr(99, "\xab"), "99:ab"},
	} {
		if got := string(appendSockaddr(nil, tt.raw)); got != tt.want {
			t.Errorf("% x: %q, want %q", tt.raw, got, tt.want)
		}
	}
}

// decodeCall renders a call without memory.
func decodeCall(name string, args ...uint64) string {
	d := newDecoder(&procFS{})
	data := seccomp.Data{Arch: seccomp.NativeArch()}
	nr, ok := seccomp.SyscallNumber(data.Arch, name)
	if !ok {
		return "absent"
	}
	data.Nr = int32(nr)
	copy(data.Args[:], args)
	var s []string
	for _, a := range d.decode(d.form(&data), &data, 0) {
		s = append(s, a.Name+"="+a.Value)
	}
	return strings.Join(s, " ")
}

func TestRegisters(t *testing.T) {
	const minus1 = 1<<64 - 1
	for _, tt := range []struct {
		name string
		args []uint64
		want string
	}{
		{"openat", []uint64{uint64(uint32(0xffffff9c)), 0x1000, unix.O_WRONLY | unix.O_CREAT, 0o644}, "dirfd=AT_FDCWD path=0x1000 flags=O_WRONLY|O_CREAT mode=0644"},
		{"openat", []uint64{5, 0, unix.O_RDONLY, 0o644}, "dirfd=5 path=NULL flags=O_RDONLY"},
		{"kill", []uint64{minus1, 9}, "pid=-1 signal=SIGKILL"},
		{"kill", []uint64{1, 0}, "pid=1 signal=0"},
		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_VFORK | 17, 0}, "flags=CLONE_VM|CLONE_VFORK|SIGCHLD stack=0x0"},
		{"clone", []uint64{17, 0}, "flags=SIGCHLD stack=0x0"},
		{"clone", []uint64{0, 0}, "flags=0 stack=0x0"},
		{"setns", []uint64{3, unix.CLONE_NEWNET}, "fd=3 type=CLONE_NEWNET"},
		{"setresuid", []uint64{0xffffffff, 1000, minus1}, "ruid=-1 euid=1000 suid=-1"},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 17}, "domain=AF_INET type=SOCK_DGRAM|SOCK_NONBLOCK protocol=17"},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, "option=PR_SET_DUMPABLE arg2=0x1 arg3=0x0 arg4=0x0 arg5=0x0"},
		{"prctl", []uint64{unix.PR_SET_NAME, 0x10}, "option=PR_SET_NAME name=0x10 arg2=0x10 arg3=0x0 arg4=0x0 arg5=0x0"},
		{"mprotect", []uint64{0x1000, 4096, 7}, "addr=0x1000 length=4096 prot=PROT_READ|PROT_WRITE|PROT_EXEC"},
		{"sendto", []uint64{3, 0, 10, unix.MSG_NOSIGNAL, 0, 0}, "fd=3 len=10 flags=MSG_NOSIGNAL addrlen=0"},
		{"unlinkat", []uint64{3, 1, unix.AT_REMOVEDIR}, "dirfd=3 path=0x1 flags=AT_REMOVEDIR"},
		{"getppid", nil, ""},
		{"mount_setattr", []uint64{3, 0, 1, 2, 3}, "dirfd=3 path=NULL flags=0x1 attr=0x2 size=3"},
		{"getuid", nil, ""},
		{"sysinfo", []uint64{1}, "arg0=0x1 arg1=0x0 arg2=0x0 arg3=0x0 arg4=0x0 arg5=0x0"},
	} {
		if got := decodeCall(tt.name, tt.args...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestForeignCalls(t *testing.T) {
	d := newDecoder(&procFS{})
	for _, tt := range []struct {
		data         seccomp.Data
		name, arch   string
		exec, tracks bool
	}{
		{seccomp.Data{Arch: seccomp.Arch386, Nr: 11}, "execve", "SCMP_ARCH_X86", true, true},
		{seccomp.Data{Arch: seccomp.Arch386, Nr: 5}, "open", "SCMP_ARCH_X86", false, true},
		{seccomp.Data{Arch: seccomp.ArchAMD64, Nr: 0x40000000 + 257}, "openat", "SCMP_ARCH_X32", false, true},
		{seccomp.Data{Arch: seccomp.ArchARM, Nr: 5}, "open", "SCMP_ARCH_ARM", false, true},
		{seccomp.Data{Arch: seccomp.NativeArch(), Nr: 4000}, "syscall_4000", seccomp.NativeArch().Name(), false, false},
		{seccomp.Data{Arch: seccomp.NativeArch(), Nr: -1}, "syscall_-1", seccomp.NativeArch().Name(), false, false},
		{seccomp.Data{Arch: 7, Nr: 5}, "syscall_5", seccomp.Arch(7).Name(), false, true},
	} {
		f := d.form(&tt.data)
		if f.name != tt.name || f.arch != tt.arch || f.exec != tt.exec || f.tracks != tt.tracks {
			t.Errorf("%+v: %s on %s, exec %v, tracks %v", tt.data, f.name, f.arch, f.exec, f.tracks)
		}
		if args := d.decode(f, &tt.data, 0); len(args) != 6 {
			t.Errorf("%+v: %d arguments, want the registers", tt.data, len(args))
		}
	}
}

// TestWordsAreToldApart checks the quoting of argv against a reader of it.
func TestWordsAreToldApart(t *testing.T) {
	for _, words := range [][]string{
		{"a"}, {"a", "b"}, {"a b"}, {""}, {"", ""}, {"'"}, {"''", "'"}, {"a'b", `\`, "$(x)"}, {"?"}, {"ü", "\xff"}, {"\n"},
	} {
		line := string(quoteWords(words))
		if got := splitWords(line); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", words) {
			t.Errorf("%q shows as %s, which reads as %q", words, line, got)
		}
	}
}

// quoteWords does what peekArgv does, from our own memory.
func quoteWords(words []string) []byte {
	var m ownMemory
	return []byte(m.argv(words).Value)
}

// splitWords reads words as a shell does.
func splitWords(line string) []string {
	var words []string
	word, open := []byte(nil), false
	for i := 0; i < len(line); {
		switch line[i] {
		case ' ':
			words, word, open = append(words, string(word)), nil, false
			i++
		case '\'':
			end := i + 1 + strings.IndexByte(line[i+1:], '\'')
			word, open = append(word, line[i+1:end]...), true
			i = end + 1
		case '\\':
			word, open = append(word, line[i+1]), true
			i += 2
		default:
			word, open = append(word, line[i]), true
			i++
		}
	}
	if open || len(word) > 0 {
		words = append(words, string(word))
	}
	return words
}
