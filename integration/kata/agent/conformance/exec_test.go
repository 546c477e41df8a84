// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"strings"
	"testing"
	"time"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExecBeforeStart(t *testing.T) {
	id := create(t, request(newID(), "exit", "5"))
	if said := output(t, id, "cat", "/proc/1/cmdline"); strings.HasPrefix(said, "probe") {
		t.Error("the container's process runs before it was started")
	}
	if _, err := agent.StartContainer(t.Context(), &grpc.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, id, id); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
}

// A container whose first process ends while an exec is being made ends, however far the exec has come.
func TestEndDuringExec(t *testing.T) {
	for round := range 24 {
		id := start(t, request(newID(), "sleep"))
		made := make(chan struct{})
		go func() {
			defer close(made)
			exec := &grpc.ExecProcessRequest{ContainerId: id, ExecId: newID(), Process: process("sleep")}
			_, _ = agent.ExecProcess(t.Context(), exec) // it fails, but for the last ones
		}()
		time.Sleep(time.Duration(round) * 8 * time.Millisecond)
		kill(t, id, id, unix.SIGKILL)
		if code := wait(t, id, id); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
		<-made
	}
}

// statusOf gives values of /proc/self/status as a process sees them.
func statusOf(t *testing.T, text string) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// What the container has and the request of an exec lacks: capabilities, limits and the filter are the container's,
// no_new_privs is not.
func TestExecInherits(t *testing.T) {
	req := request(newID(), "sleep")
	p := req.OCI.Process
	p.NoNewPrivileges = true
	p.OOMScoreAdj = 321
	p.Rlimits = []*grpc.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 777, Soft: 777}}
	req.OCI.Linux.Seccomp = &grpc.LinuxSeccomp{
		DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"SCMP_ARCH_X86_64"},
		Syscalls: []*grpc.LinuxSyscall{{Names: []string{"swapon"}, Action: "SCMP_ACT_ERRNO"}},
	}
	id := start(t, req)

	first := statusOf(t, output(t, id, "cat", "/proc/1/status"))
	own := statusOf(t, output(t, id, "cat", "/proc/self/status"))
	for _, name := range []string{"CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb", "Seccomp", "Seccomp_filters"} {
		if first[name] != own[name] {
			t.Errorf("%s: the exec has %s, the container's process %s", name, own[name], first[name])
		}
	}
	if own["Seccomp"] != "2" {
		t.Errorf("the exec has no filter: Seccomp is %s", own["Seccomp"])
	}
	if first["NoNewPrivs"] != "1" || own["NoNewPrivs"] != "0" {
		t.Errorf("NoNewPrivs: the container's process has %s, want 1; the exec %s, want 0", first["NoNewPrivs"], own["NoNewPrivs"])
	}
	if limit := output(t, id, "limits"); limit != "777" {
		t.Errorf("the exec may open %s files, want the container's limit", limit)
	}
	if score := output(t, id, "cat", "/proc/self/oom_score_adj"); score != "321" {
		t.Errorf("the exec's OOM score is %s, want the container's", score)
	}
}

func TestExecWithCapabilities(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	p := process("cat", "/proc/self/status")
	capabilities := []string{"CAP_KILL"}
	p.Capabilities = &grpc.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities}
	if caps := statusOf(t, finish(t, id, spawn(t, id, p)))["CapEff"]; caps != "0000000000000020" {
		t.Errorf("CapEff is %s, want what was asked for", caps)
	}
}

func TestNoCapabilities(t *testing.T) {
	req := request(newID(), "sleep")
	req.OCI.Process.Capabilities = nil
	_, err := agent.CreateContainer(t.Context(), req)
	if err == nil || !strings.Contains(err.Error(), "missing process capabilities") {
		t.Errorf("CreateContainer without capabilities: %v", err)
	}
}

func TestExecID(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	eid := spawn(t, id, process("sleep"))
	req := &grpc.ExecProcessRequest{ContainerId: id, ExecId: eid, Process: process("exit", "0")}
	if _, err := agent.ExecProcess(t.Context(), req); err == nil {
		t.Error("an exec with the id of a running one was started")
	}
	kill(t, id, eid, unix.SIGKILL)
	wait(t, id, eid)
	if _, err := agent.ExecProcess(t.Context(), req); err != nil {
		t.Errorf("an exec with the id of one that was waited for: %v", err)
	}
	wait(t, id, eid)
}

func TestWait(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	eid := spawn(t, id, process("exit", "9"))
	if code := wait(t, id, eid); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	_, err := agent.WaitProcess(t.Context(), &grpc.WaitProcessRequest{ContainerId: id, ExecId: eid})
	if status.Code(err) != codes.NotFound {
		t.Errorf("waiting again: %v, want NotFound", err)
	}
	if _, err := agent.WaitProcess(t.Context(), &grpc.WaitProcessRequest{ContainerId: "nobody"}); err == nil {
		t.Error("waiting in a container that does not exist succeeds")
	}
}

func TestSignals(t *testing.T) {
	t.Run("SIGTERM that nobody handles", func(t *testing.T) {
		// The kernel drops it for the first process of a pid namespace, so the agent sends another.
		id := start(t, request(newID(), "drop"))
		readUntil(t, id, id, "ready")
		kill(t, id, id, unix.SIGTERM)
		if code := wait(t, id, id); code != 128+int32(unix.SIGKILL) {
			t.Errorf("exit code %d, want that of SIGKILL", code)
		}
	})
	t.Run("SIGTERM that is handled", func(t *testing.T) {
		id := start(t, request(newID(), "heed"))
		readUntil(t, id, id, "ready")
		kill(t, id, "", unix.SIGTERM)
		if code := wait(t, id, id); code != 3 {
			t.Errorf("exit code %d, want the handler's", code)
		}
	})
	t.Run("SIGKILL to all", func(t *testing.T) {
		id := start(t, request(newID(), "sleep"))
		eid := spawn(t, id, process("sleep"))
		kill(t, id, "", unix.SIGKILL)
		if a, b := wait(t, id, id), wait(t, id, eid); a != 137 || b != 137 {
			t.Errorf("exit codes %d and %d, want 137 for both", a, b)
		}
		kill(t, id, "", unix.SIGKILL) // that nobody is left is no error
	})
	t.Run("SIGKILL to one exec", func(t *testing.T) {
		id := start(t, request(newID(), "sleep"))
		eid := spawn(t, id, process("sleep"))
		kill(t, id, eid, unix.SIGKILL)
		if code := wait(t, id, eid); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
		if said := output(t, id, "cat", "/proc/1/comm"); said != "probe" {
			t.Errorf("the first process is %q", said)
		}
	})
}
