// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

// sandboxID is the sandbox of all tests, and the name of a directory of shared things that has their root file system.
const sandboxID = "conformance"

// patience is what a boot takes at the very most, or what comes after it, on a machine that is busy with other tests.
const patience = 4 * time.Minute

var (
	agent  grpc.AgentServiceService
	health grpc.HealthService
)

func TestMain(m *testing.M) {
	code, err := withAgent(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = 1
	}
	os.Exit(code)
}

// withAgent runs the tests against the agent of a guest.
func withAgent(run func() int) (int, error) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	probe := filepath.Join(dir, "probe")
	if err := build(probe, "./testdata/probe"); err != nil {
		return 0, err
	}
	var client *ttrpc.Client
	stop := func() {}
	if socket := os.Getenv("METSUKE_KATA_AGENT_SOCKET"); socket != "" {
		client, err = connect(socket)
	} else {
		client, stop, err = boot(dir)
	}
	if err != nil {
		return 0, err
	}
	defer stop()
	defer func() { _ = client.Close() }()
	agent, health = grpc.NewAgentServiceClient(client), grpc.NewHealthClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := agent.CreateSandbox(ctx, &grpc.CreateSandboxRequest{SandboxId: sandboxID, Hostname: "guest"}); err != nil {
		return 0, fmt.Errorf("CreateSandbox: %w", err)
	}
	if err := makeRoot(ctx, probe); err != nil {
		return 0, err
	}
	if err := startFirst(ctx); err != nil {
		return 0, err
	}
	return run(), nil
}

func build(out, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

// connect waits for somebody who listens, and for an agent who answers.
func connect(socket string) (*ttrpc.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := net.Dial("unix", socket)
	for ; err != nil; conn, err = net.Dial("unix", socket) {
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
	client := ttrpc.NewClient(conn)
	if _, err := grpc.NewHealthClient(client).Check(ctx, &grpc.CheckRequest{}); err != nil {
		return nil, errors.Join(fmt.Errorf("the agent does not answer: %w", err), client.Close())
	}
	return client, nil
}

// boot starts a guest under emulation, and connects to its agent. One that hangs at its boot is booted again, once, as the stand does.
func boot(dir string) (client *ttrpc.Client, stop func(), err error) {
	tools, err := findTools()
	if err != nil {
		return nil, nil, err
	}
	image, socket := filepath.Join(dir, "initrd.img"), filepath.Join(dir, "agent")
	if err := makeImage(tools, dir, image); err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		if stop, err = startGuest(filepath.Join(tools["kernel"], "vmlinuz"), image, socket); err != nil {
			return nil, nil, err
		}
		if client, err = connect(socket); err == nil {
			return client, stop, nil
		}
		stop()
		if attempt == 2 {
			return nil, nil, err
		}
		fmt.Fprintln(os.Stderr, "conformance: boot again:", err)
		_ = os.Remove(socket)
	}
}

// startGuest starts a guest whose agent is behind the socket. Its console is the tests' standard error.
func startGuest(kernel, image, socket string) (stop func(), err error) {
	qemu := exec.Command("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512M",
		"-kernel", kernel, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path="+socket,
		"-device", "virtserialport,chardev=agent,name=agent.0",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot")
	qemu.Stdout, qemu.Stderr = os.Stderr, os.Stderr
	runtime.LockOSThread() // the signal comes when the thread ends
	qemu.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := qemu.Start(); err != nil {
		return nil, fmt.Errorf("start the guest: %w", err)
	}
	return func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	}, nil
}

// findTools gives the directories of the tools that the guest is made of, built if need be.
func findTools() (map[string]string, error) {
	cmd := exec.Command("../../../tools/build.sh", "kernel", "runcstatic")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("build the guest's parts: %w", err)
	}
	tools := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if set, dir, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			tools[set] = dir
		}
	}
	return tools, nil
}

// makeImage writes the guest's first file system.
func makeImage(tools map[string]string, dir, image string) error {
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	if err := build(filepath.Join(root, "init"), ".."); err != nil {
		return err
	}
	script := `set -eu
cp "$RUNC/runc" bin/runc
mkdir -p modules ../lib
ln -s "$KERNEL/modules" ../lib/modules
for name in virtio_pci virtio_console overlay; do
  modprobe -d "$PWD/.." -S "$(ls "$KERNEL/modules")" --show-depends $name
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" modules/
  basename "$file" >>modules/order
done
find . | cpio --quiet -o -H newc >"$IMAGE"`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "RUNC="+tools["runcstatic"], "KERNEL="+tools["kernel"], "IMAGE="+image)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the guest's first file system: %w", err)
	}
	return nil
}
