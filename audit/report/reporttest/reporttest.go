// SPDX-License-Identifier: Apache-2.0

// Package reporttest writes the streams that tests of reports are about: a usual session of a coding agent, and one whose every string is
// hostile.
package reporttest

import (
	"testing"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
)

// Instance is one life of a container, in a stream with others of the same container.
type Instance struct {
	Identity audit.Identity
	Events   []audit.Event
}

// Write appends instances to their streams below root, in their order, and closes each.
func Write(t testing.TB, root string, key *signature.Key, instances []Instance) {
	t.Helper()
	for _, i := range instances {
		w, err := stream.OpenWriter(stream.Dir(root, i.Identity), i.Identity, stream.Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		for n := range i.Events {
			if err := w.Append(&i.Events[n]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Key returns a key that is always the same, and no secret.
func Key(t testing.TB) *signature.Key {
	t.Helper()
	key, err := signature.Parse([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// script writes down what happens, one event after the other.
type script struct {
	now    time.Time
	exec   string // session that events are of
	events []audit.Event
}

func (s *script) wait(d time.Duration) { s.now = s.now.Add(d) }

func (s *script) add(e audit.Event) {
	e.Time, e.Exec = s.now, s.exec
	s.events = append(s.events, e)
}

// process is who makes calls.
type process struct {
	*script
	pid, ppid, uid uint32
	exe            string
}

func (p *process) call(name, class string, args ...audit.Arg) *audit.Syscall {
	comm := p.exe
	for i := len(comm) - 1; i >= 0; i-- {
		if comm[i] == '/' {
			comm = comm[i+1:]
			break
		}
	}
	c := &audit.Syscall{
		PID: p.pid, TID: p.pid, PPID: p.ppid, UID: p.uid, GID: p.uid, Comm: comm, Exe: p.exe, Syscall: name, Arch: "SCMP_ARCH_X86_64",
		Args: args, Class: class, Verdict: audit.VerdictAllowed,
	}
	p.add(audit.Event{Kind: audit.KindSyscall, Syscall: c})
	p.wait(3 * time.Millisecond)
	return c
}

// refused has a call denied, or killed if there is no error.
func (p *process) refused(errno, rule, name, class string, args ...audit.Arg) *audit.Syscall {
	c := p.call(name, class, args...)
	c.Verdict, c.Errno, c.RuleID, c.Origin = audit.VerdictDenied, errno, rule, "baseline"
	if errno == "" {
		c.Verdict = audit.VerdictKilled
	}
	return c
}

// runs has the process execute a program.
func (p *process) runs(path, argv string) {
	p.call("execve", "exec", peeked("path", path), peeked("argv", argv))
	p.exe = path
	p.wait(20 * time.Millisecond)
}

// child makes another process, which executes a program.
func (p *process) child(pid uint32, path, argv string) *process {
	c := &process{script: p.script, pid: pid, ppid: p.pid, uid: p.uid, exe: p.exe}
	c.runs(path, argv)
	return c
}

func (p *process) writes(path string) {
	p.call("openat", "file-write", exact("dirfd", "AT_FDCWD"), peeked("path", path), exact("flags", "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC"), exact("mode", "0666"))
}

func (p *process) deletes(path string) {
	p.call("unlinkat", "file-delete", exact("dirfd", "AT_FDCWD"), peeked("path", path), exact("flags", "0"))
}

func (p *process) renames(from, to string) {
	p.call("rename", "file-delete", peeked("from", from), peeked("to", to))
}

func (p *process) connects(addr string) {
	p.call("socket", "net", exact("domain", "AF_INET"), exact("type", "SOCK_STREAM|SOCK_CLOEXEC"), exact("protocol", "0"))
	p.call("connect", "net", exact("fd", "5"), peeked("addr", addr), exact("addrlen", "16"))
}

func peeked(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidencePeeked}
}

func exact(name, value string) audit.Arg {
	return audit.Arg{Name: name, Value: value, Evidence: audit.EvidenceRegister}
}
