// SPDX-License-Identifier: Apache-2.0

package reporttest

import (
	"fmt"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
)

var begin = time.Date(2026, 11, 21, 10, 31, 7, 114_000_000, time.UTC)

func identity(container, instance string) audit.Identity {
	return audit.Identity{
		Node: "worker-1", Namespace: "team-a", Pod: "coder", PodUID: "6f1c2a4e-9d0b-4a55-8a0e-0d8f1f2b3c4d", Container: container,
		ContainerID: strings.Repeat(instance, 8), Profile: "coder", ProfileDigest: strings.Repeat("77aac1d2", 8),
	}
}

// Session is a coding agent at work: it clones, installs and tests, tries what it must not, runs out of memory, and is looked at by somebody
// with kubectl exec. Its shim dies once. Beside it runs a proxy.
func Session() []Instance {
	s := &script{now: begin}
	first := agent(s)
	s.events = nil
	s.wait(2 * time.Second)
	second := again(s)
	return []Instance{
		{identity("agent", "9f3c0c1e"), first}, {identity("agent", "41bd77f0"), second}, {identity("proxy", "c0ffee12"), proxy()},
	}
}

func (s *script) receipt(pid uint32, image string) {
	s.add(audit.Event{Kind: audit.KindStart, Receipt: &audit.Receipt{
		Version: "0.1.0", Kernel: "6.18.0", Placement: "guest", Delegate: "io.containerd.kata.v2", Image: image, PID: pid, SeccompMode: 2, Filters: 1,
		FilterDigest: strings.Repeat("3f9c", 16), NoNewPrivs: true, OnLoss: "kill",
		Limits: []audit.ReceiptLimit{{Name: "memory", Asked: "2147483648", Found: "2147483648"}, {Name: "pids", Asked: "256", Found: "256"}},
	}})
	s.wait(12 * time.Millisecond)
}

func (s *script) lowered(resource, requested, ceiling string) {
	s.add(audit.Event{Kind: audit.KindLimit, Limit: &audit.Limit{Operation: "create", Resource: resource, Requested: requested, Ceiling: ceiling, Applied: ceiling}})
}

func agent(s *script) []audit.Event {
	s.lowered("memory", "8Gi", "2Gi")
	s.lowered("pids", "4096", "256")
	s.receipt(12, "registry.example/coder:1.4")
	python := &process{script: s, pid: 12, ppid: 1, uid: 1000, exe: "/.metsuke/guest"}
	python.runs("/usr/bin/python3.13", "python3 -m agent --task 'fix the flaky test'")
	python.connects("10.20.0.7:443")
	clones(python)
	installs(python)
	looks(s)
	misbehaves(python)
	tests(python)
	python.writes("/work/notes/summary.md")
	s.wait(1500 * time.Millisecond)
	s.add(audit.Event{Kind: audit.KindLoss, Loss: &audit.Loss{Reason: audit.LossShim, Count: 12, OnLoss: "kill", Detail: "the shim was killed"}})
	return s.events
}

func clones(python *process) {
	shell := python.child(31, "/bin/sh", "sh -c 'git clone https://git.example/team/service'")
	git := shell.child(32, "/usr/bin/git", "git clone https://git.example/team/service")
	remote := git.child(33, "/usr/lib/git-core/git-remote-https", "git-remote-https origin https://git.example/team/service")
	remote.connects("10.96.0.10:53")
	remote.connects("140.82.112.3:443")
	for i := range 46 {
		git.writes(fmt.Sprintf("/work/service/src/module_%02d.py", i))
		git.wait(35 * time.Millisecond)
	}
	git.renames("/work/service/.git/index.lock", "/work/service/.git/index")
	python.wait(2 * time.Second)
}

func installs(python *process) {
	pip := python.child(40, "/usr/bin/pip", "pip install -r requirements.txt")
	pip.connects("10.96.0.10:53")
	for range 4 {
		pip.connects("151.101.0.223:443")
		pip.wait(400 * time.Millisecond)
	}
	build := pip.child(41, "/usr/bin/python3.13", "python3 setup.py build_ext")
	compiler := build.child(42, "/usr/bin/cc", "cc -O2 -fPIC -c speedups.c -o build/speedups.o")
	compiler.writes("/tmp/pip-build-7h2k/speedups.s")
	compiler.child(43, "/usr/bin/as", "as -o build/speedups.o /tmp/pip-build-7h2k/speedups.s").writes("/tmp/pip-build-7h2k/build/speedups.o")
	for i := range 80 {
		pip.writes(fmt.Sprintf("/work/venv/lib/python3.13/site-packages/package_%02d/__init__.py", i%20))
		pip.wait(30 * time.Millisecond)
	}
	pip.deletes("/tmp/pip-build-7h2k/speedups.s")
	pip.deletes("/tmp/pip-build-7h2k/build/speedups.o")
	python.wait(time.Second)
}

// looks is somebody who looks in with kubectl exec.
func looks(s *script) {
	s.exec = "b7d2c9a0f4e1"
	s.add(audit.Event{Kind: audit.KindExec, ExecStart: &audit.ExecStart{
		PID: 60, UID: 1000, GID: 1000, Terminal: true, SeccompMode: 2, Filters: 1, NoNewPrivs: true, Argv: []string{"bash", "-c", "ps aux; tail -n 20 /work/agent.log"},
	}})
	bash := &process{script: s, pid: 60, ppid: 1, uid: 1000, exe: "/.metsuke/guest"}
	bash.runs("/usr/bin/bash", "bash -c 'ps aux; tail -n 20 /work/agent.log'")
	bash.child(61, "/usr/bin/ps", "ps aux")
	bash.wait(700 * time.Millisecond)
	bash.child(62, "/usr/bin/tail", "tail -n 20 /work/agent.log")
	bash.wait(2 * time.Second)
	s.add(audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}})
	s.exec = ""
	s.wait(300 * time.Millisecond)
}

func misbehaves(python *process) {
	curl := python.child(70, "/usr/bin/curl", "curl -s http://169.254.169.254/latest/meta-data/iam/")
	curl.connects("169.254.169.254:80")
	curl.wait(200 * time.Millisecond)
	docker := python.child(71, "/usr/bin/curl", "curl --unix-socket /run/docker.sock http://localhost/containers/json")
	docker.refused("EACCES", "no-unix-connect", "connect", "net", exact("fd", "3"), peeked("addr", "unix:/run/docker.sock"), exact("addrlen", "110"))
	docker.wait(500 * time.Millisecond)
	shell := python.child(72, "/bin/sh", "sh -c './tools/debug.sh'")
	trace := shell.child(73, "/usr/bin/strace", "strace -f -p 12")
	attach := trace.refused("EPERM", "no-ptrace", "ptrace", "process", exact("request", "PTRACE_SEIZE"), exact("pid", "12"), exact("addr", "0x0"), exact("data", "0x0"))
	attach.Count, attach.Until = 37, trace.now.Add(2*time.Second)
	trace.wait(2 * time.Second)
	root := shell.child(74, "/usr/bin/unshare", "unshare -r sh")
	root.refused("EPERM", "no-namespaces", "unshare", "namespace", exact("flags", "CLONE_NEWUSER"))
	root.refused("EPERM", "no-mount", "mount", "mount", peeked("source", "none"), peeked("target", "/mnt"), peeked("type", "tmpfs"), exact("flags", "0"))
	python.wait(400 * time.Millisecond)
	bpf := shell.child(75, "/tmp/.x/helper", "./helper")
	bpf.refused("EPERM", "no-bpf", "bpf", "bpf", exact("cmd", "BPF_PROG_LOAD"))
	bpf.refused("", "no-modules", "init_module", "module", exact("len", "40960"))
	shell.deletes("/work/.bash_history")
	shell.deletes("/tmp/.x/helper")
	python.wait(900 * time.Millisecond)
}

func tests(python *process) {
	pytest := python.child(80, "/work/venv/bin/pytest", "pytest -n 4 --maxfail 1")
	var workers []*process
	for i := range uint32(4) {
		w := pytest.child(81+i, "/usr/bin/python3.13", fmt.Sprintf("python3 -c 'worker gw%d'", i))
		w.call("setresuid", "privilege", exact("ruid", "1000"), exact("euid", "1000"), exact("suid", "1000"))
		workers = append(workers, w)
	}
	for i := range 60 {
		w := workers[(i*7+i/5)%4]
		w.writes(fmt.Sprintf("/work/service/.pytest_cache/v/cache/node_%02d", i%25))
		w.wait(time.Duration(40+i%9*25) * time.Millisecond)
		if i == 38 {
			python.add(audit.Event{Kind: audit.KindOOM, OOM: &audit.OOM{Count: 1, MemoryLimit: 2 << 30}})
		}
	}
	workers[0].connects("127.0.0.1:5432")
	pytest.writes("/work/service/report.xml")
	python.wait(800 * time.Millisecond)
}

// again is the agent's next instance.
func again(s *script) []audit.Event {
	s.lowered("memory", "8Gi", "2Gi")
	s.receipt(12, "registry.example/coder:1.4")
	python := &process{script: s, pid: 12, ppid: 1, uid: 1000, exe: "/.metsuke/guest"}
	python.runs("/usr/bin/python3.13", "python3 -m agent --resume")
	git := python.child(31, "/usr/bin/git", "git push origin fix/flaky-test")
	git.connects("140.82.112.3:443")
	git.renames("/work/service/.git/refs/heads/fix.lock", "/work/service/.git/refs/heads/fix")
	python.wait(3 * time.Second)
	s.add(audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{}})
	s.wait(100 * time.Millisecond)
	s.add(audit.Event{Kind: audit.KindEnd, End: &audit.End{Records: uint64(len(s.events))}})
	return s.events
}

func proxy() []audit.Event {
	s := &script{now: begin.Add(-400 * time.Millisecond)}
	s.receipt(9, "registry.example/egress-proxy:2.0")
	p := &process{script: s, pid: 9, ppid: 1, uid: 101, exe: "/.metsuke/guest"}
	p.runs("/usr/local/bin/egress-proxy", "egress-proxy --listen 127.0.0.1:3128")
	p.call("bind", "net", exact("fd", "4"), peeked("addr", "127.0.0.1:3128"), exact("addrlen", "16"))
	for i := range 9 {
		p.wait(time.Duration(2+i%3) * time.Second)
		p.connects([]string{"140.82.112.3:443", "151.101.0.223:443", "[2606:4700::6810:84e5]:443"}[i%3])
	}
	p.wait(5 * time.Second)
	s.add(audit.Event{Kind: audit.KindExit, Exit: &audit.Exit{Status: 143, Signal: "SIGTERM"}})
	s.add(audit.Event{Kind: audit.KindEnd, End: &audit.End{Records: uint64(len(s.events))}})
	return s.events
}
