// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

// shared is the only place that an agent copies files to.
const shared = "/run/kata-containers/shared/containers/"

// root is the root file system of all containers.
const root = shared + sandboxID + "/rootfs"

// chunk is the size of the shim's messages with a part of a file.
const chunk = 1 << 20

func makeRoot(ctx context.Context, probe string) error {
	content, err := os.ReadFile(probe)
	if err != nil {
		return err
	}
	for _, dir := range []string{"proc", "dev", "sys", "tmp", "dir", "etc"} {
		req := &grpc.CopyFileRequest{Path: root + "/" + dir, FileMode: unix.S_IFDIR | 0o755, DirMode: 0o755}
		if err := copyFile(ctx, req, nil); err != nil {
			return err
		}
	}
	return copyFile(ctx, &grpc.CopyFileRequest{Path: root + "/bin/probe", FileMode: unix.S_IFREG | 0o755, DirMode: 0o755}, content)
}

// copyFile sends a file as the shim does, in chunks.
func copyFile(ctx context.Context, req *grpc.CopyFileRequest, content []byte) error {
	req.FileSize = int64(len(content))
	for {
		n := min(chunk, len(content))
		req.Data, content = content[:n], content[n:]
		if _, err := agent.CopyFile(ctx, req); err != nil {
			return fmt.Errorf("CopyFile %s: %w", req.Path, err)
		}
		req.Offset += int64(n)
		if len(content) == 0 {
			return nil
		}
	}
}

var counter atomic.Int64

func newID() string { return fmt.Sprintf("c%d", counter.Add(1)) }

// request is a container as the Go shim sends one; it runs the probe with words.
func request(id string, words ...string) *grpc.CreateContainerRequest {
	capabilities := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_ADMIN"}
	return &grpc.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		OCI: &grpc.Spec{
			Version: "1.1.0",
			Process: &grpc.Process{
				User: &grpc.User{}, Args: append([]string{"probe"}, words...), Env: []string{"PATH=/bin"}, Cwd: "/",
				Capabilities: &grpc.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities},
			},
			Root:     &grpc.Root{Path: root},
			Hostname: "container",
			Mounts: []*grpc.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
					Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
				{Destination: "/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "rw"}},
				{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
			},
			Linux: &grpc.Linux{
				CgroupsPath: "/conformance/" + id,
				Resources:   &grpc.LinuxResources{CPU: &grpc.LinuxCPU{}},
				Namespaces:  []*grpc.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			},
		},
	}
}

// startFirst starts the sandbox's own container, as the shim does with a pod's pause container: its pid namespace is the one
// that others may share.
func startFirst(ctx context.Context) error {
	if _, err := agent.CreateContainer(ctx, request(sandboxID, "sleep")); err != nil {
		return fmt.Errorf("CreateContainer: %w", err)
	}
	if _, err := agent.StartContainer(ctx, &grpc.StartContainerRequest{ContainerId: sandboxID}); err != nil {
		return fmt.Errorf("StartContainer: %w", err)
	}
	return nil
}

// create makes a container, which is removed when the test ends.
func create(t *testing.T, req *grpc.CreateContainerRequest) string {
	t.Helper()
	if _, err := agent.CreateContainer(t.Context(), req); err != nil {
		t.Fatalf("CreateContainer: %v", err)
	}
	t.Cleanup(func() {
		remove := &grpc.RemoveContainerRequest{ContainerId: req.ContainerId}
		if _, err := agent.RemoveContainer(context.Background(), remove); err != nil {
			t.Errorf("RemoveContainer: %v", err)
		}
	})
	return req.ContainerId
}

// start makes and starts a container.
func start(t *testing.T, req *grpc.CreateContainerRequest) string {
	t.Helper()
	id := create(t, req)
	if _, err := agent.StartContainer(t.Context(), &grpc.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatalf("StartContainer: %v", err)
	}
	return id
}

// process is an exec as the Go shim sends one: with no capabilities, limits and no_new_privs.
func process(words ...string) *grpc.Process {
	return &grpc.Process{User: &grpc.User{}, Args: append([]string{"probe"}, words...), Env: []string{"PATH=/bin"}, Cwd: "/"}
}

// spawn starts a process in a container, and gives its id.
func spawn(t *testing.T, id string, p *grpc.Process) string {
	t.Helper()
	eid := newID()
	if _, err := agent.ExecProcess(t.Context(), &grpc.ExecProcessRequest{ContainerId: id, ExecId: eid, Process: p}); err != nil {
		t.Fatalf("ExecProcess %q: %v", p.Args, err)
	}
	return eid
}

// output runs the probe in a container, and gives what it says, without the end of the last line.
func output(t *testing.T, id string, words ...string) string {
	t.Helper()
	return finish(t, id, spawn(t, id, process(words...)))
}

// finish reads all that a process says, and expects it to end well.
func finish(t *testing.T, id, eid string) string {
	t.Helper()
	said, complained := readAll(t, agent.ReadStdout, id, eid), readAll(t, agent.ReadStderr, id, eid)
	if code := wait(t, id, eid); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, said, complained)
	}
	return strings.TrimSuffix(said, "\n")
}

type read = func(context.Context, *grpc.ReadStreamRequest) (*grpc.ReadStreamResponse, error)

// readAll reads until there is an end, of either of the forms that agents have.
func readAll(t *testing.T, from read, id, eid string) string {
	t.Helper()
	var all bytes.Buffer
	for {
		answer, err := from(t.Context(), &grpc.ReadStreamRequest{ContainerId: id, ExecId: eid, Len: 32 << 10})
		if err != nil || len(answer.Data) == 0 {
			return all.String()
		}
		all.Write(answer.Data)
	}
}

// readUntil reads until a text has been said.
func readUntil(t *testing.T, id, eid, text string) {
	t.Helper()
	var all bytes.Buffer
	for !strings.Contains(all.String(), text) {
		answer, err := agent.ReadStdout(t.Context(), &grpc.ReadStreamRequest{ContainerId: id, ExecId: eid, Len: 4096})
		if err != nil || len(answer.Data) == 0 {
			t.Fatalf("the output ends before %q: %q, %v", text, all.String(), err)
		}
		all.Write(answer.Data)
	}
}

func wait(t *testing.T, id, eid string) int32 {
	t.Helper()
	answer, err := agent.WaitProcess(t.Context(), &grpc.WaitProcessRequest{ContainerId: id, ExecId: eid})
	if err != nil {
		t.Fatalf("WaitProcess: %v", err)
	}
	return answer.Status
}

func kill(t *testing.T, id, eid string, signal unix.Signal) {
	t.Helper()
	req := &grpc.SignalProcessRequest{ContainerId: id, ExecId: eid, Signal: uint32(signal)}
	if _, err := agent.SignalProcess(t.Context(), req); err != nil {
		t.Fatalf("SignalProcess: %v", err)
	}
}
