// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	hypervisor "github.com/kata-containers/kata-containers/src/runtime/protocols/hypervisor"
	"golang.org/x/sys/unix"
)

// Machines here are shell scripts that are found in the place of QEMU and of nsenter, which starts virtiofsd.
const (
	boots      = "echo firmware; printf 'agent: '; echo ready; exec sleep 1000"
	hangs      = "echo firmware; exec sleep 1000"
	bootsLater = "[ -e $0.again ] || { touch $0.again; exit 1; }; " + boots
	shares     = "test -S /dev/fd/3 && exec sleep 1000"
)

// runVariable makes a run of the test binary the daemon itself.
const runVariable = "METSUKE_TEST_RUN_VMM"

func TestMain(m *testing.M) {
	if os.Getenv(runVariable) != "" {
		os.Args = append(os.Args[:1], strings.Fields(os.Getenv(runVariable))...)
		main()
		return
	}
	os.Exit(m.Run())
}

// startDaemon runs the daemon with machines that are scripts, and returns its directory and its process.
func startDaemon(t *testing.T, machine string, patience time.Duration) (dir string, daemon *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmm") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	programs := t.TempDir()
	for name, script := range map[string]string{"qemu-system-x86_64": machine, "nsenter": shares} {
		content := fmt.Sprintf("#!/bin/sh\necho $$ >>%s/pids\n%s\n", dir, script)
		if err := os.WriteFile(filepath.Join(programs, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	daemon = exec.Command("/proc/self/exe")
	daemon.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"),
		fmt.Sprintf("%s=-dir %[2]s/vm -logs %[2]s/logs -kernel none -initrd none -patience %[3]v", runVariable, dir, patience))
	daemon.Stdout, daemon.Stderr = os.Stdout, os.Stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	return dir, daemon
}

// client connects to the daemon, as soon as it serves.
func client(t *testing.T, dir string) hypervisor.HypervisorService {
	t.Helper()
	for begin := time.Now(); ; {
		conn, err := net.Dial("unix", filepath.Join(dir, "vm", "hypervisor.sock"))
		if err == nil {
			c := ttrpc.NewClient(conn)
			t.Cleanup(func() { _ = c.Close() })
			return hypervisor.NewHypervisorClient(c)
		}
		if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func create(t *testing.T, c hypervisor.HypervisorService, id string, annotations ...string) (*hypervisor.CreateVMResponse, error) {
	t.Helper()
	return c.CreateVM(t.Context(), machineOf(id, annotations...))
}

// machineOf asks for a machine, of one CPU and 2048 MiB if the annotations do not say otherwise.
func machineOf(id string, annotations ...string) *hypervisor.CreateVMRequest {
	all := map[string]string{annotationVCPUs: "1", annotationMemory: "2048"}
	for i := 0; i < len(annotations); i += 2 {
		all[annotations[i]] = annotations[i+1]
	}
	return &hypervisor.CreateVMRequest{Id: id, Annotations: all}
}

// children are the scripts that were started and still run, the daemon's own zombies left out.
func children(t *testing.T, dir string) (running []int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "pids"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // none yet
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(content)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(status), ") Z ") {
			running = append(running, pid)
		}
	}
	return running
}

// waitForChildren waits until so many scripts run.
func waitForChildren(t *testing.T, dir string, count int) {
	t.Helper()
	for begin := time.Now(); len(children(t, dir)) != count; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d processes should run, and there are %v", count, children(t, dir))
		}
	}
}

func TestMachine(t *testing.T) {
	for _, test := range []struct{ name, machine string }{{"boots", boots}, {"boots at the second attempt", bootsLater}} {
		t.Run(test.name, func(t *testing.T) {
			dir, _ := startDaemon(t, test.machine, time.Hour)
			c := client(t, dir)
			response, err := create(t, c, "one")
			if err != nil || response.GetAgentSocketPath() != dir+"/vm/one/agent" {
				t.Fatalf("CreateVM: %v, %v", response, err)
			}
			if _, err := create(t, c, "one"); err == nil {
				t.Error("a second machine of the same ID was made")
			}
			if _, err := c.StartVM(t.Context(), &hypervisor.StartVMRequest{Id: "one"}); err != nil {
				t.Fatal(err)
			}
			waitForChildren(t, dir, 2)
			for range 2 { // as the shim does
				if _, err := c.StopVM(t.Context(), &hypervisor.StopVMRequest{Id: "one"}); err != nil {
					t.Error(err)
				}
			}
			if got := children(t, dir); len(got) != 0 {
				t.Errorf("left running: %v", got)
			}
			if _, err := os.Stat(dir + "/vm/one"); err == nil {
				t.Error("the machine's directory is left")
			}
			if console, err := os.ReadFile(dir + "/logs/one.console"); err != nil || !strings.Contains(string(console), "firmware\nagent: ready\n") {
				t.Errorf("console: %q, %v", console, err)
			}
		})
	}
}

func TestMachineThatNeverBoots(t *testing.T) {
	dir, _ := startDaemon(t, hangs, 20*time.Millisecond)
	c := client(t, dir)
	if _, err := create(t, c, "one"); err != nil {
		t.Fatal(err)
	}
	_, err := c.StartVM(t.Context(), &hypervisor.StartVMRequest{Id: "one"})
	if err == nil || !strings.Contains(err.Error(), "one.console") {
		t.Errorf("StartVM: %v; want an error that names the console's log", err)
	}
	if got := children(t, dir); len(got) != 0 {
		t.Errorf("left running: %v", got)
	}
}

// A shim that gives up stops a machine while it boots.
func TestStopInterruptsBoot(t *testing.T) {
	dir, _ := startDaemon(t, hangs, time.Hour)
	c := client(t, dir)
	if _, err := create(t, c, "one"); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		_, err := c.StartVM(context.Background(), &hypervisor.StartVMRequest{Id: "one"})
		started <- err
	}()
	waitForChildren(t, dir, 2)
	if _, err := c.StopVM(t.Context(), &hypervisor.StopVMRequest{Id: "one"}); err != nil {
		t.Error(err)
	}
	if err := <-started; err == nil {
		t.Error("StartVM of a machine that was stopped meanwhile had success")
	}
	if got := children(t, dir); len(got) != 0 {
		t.Errorf("left running: %v", got)
	}
}

// Machines end with their shim too: the shim is a process that only has the connection.
func TestMachineEndsWithShim(t *testing.T) {
	d := newDaemon(options{dir: t.TempDir()})
	shim := exec.Command("sleep", "1000")
	if err := shim.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.create(machineOf("one"), shim.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if d.find("one") == nil {
		t.Error("the machine ended before its shim")
	}
	_ = shim.Process.Kill()
	_ = shim.Wait()
	for begin := time.Now(); d.find("one") != nil; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the machine outlives its shim")
		}
	}
}

func TestNothingOutlivesTheDaemon(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			dir, daemon := startDaemon(t, boots, time.Hour)
			c := client(t, dir)
			for _, id := range []string{"one", "two"} {
				if _, err := create(t, c, id); err != nil {
					t.Fatal(err)
				}
				if _, err := c.StartVM(t.Context(), &hypervisor.StartVMRequest{Id: id}); err != nil {
					t.Fatal(err)
				}
			}
			if err := daemon.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = daemon.Wait()
			waitForChildren(t, dir, 0) // a death signal is sent, but not waited for
			if _, err := os.Stat(dir + "/vm"); signal == unix.SIGTERM && err == nil {
				t.Error("the daemon's directory is left")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	dir, _ := startDaemon(t, boots, time.Hour)
	c := client(t, dir)
	for _, test := range []struct {
		name, id   string
		annotation []string
	}{
		{"no ID", "", nil},
		{"an ID that leads elsewhere", "../one", nil},
		{"a number that is none", "one", []string{annotationVCPUs, "many"}},
		{"no number", "one", []string{annotationMemory, ""}},
		{"more kernel parameters", "one", []string{annotationType, "a init=/bin/sh"}},
	} {
		if _, err := create(t, c, test.id, test.annotation...); err == nil {
			t.Errorf("%s: a machine was made", test.name)
		}
	}
	if _, err := c.StartVM(t.Context(), &hypervisor.StartVMRequest{Id: "one"}); err == nil {
		t.Error("a machine that was not made was started")
	}
}

func TestCommandLine(t *testing.T) {
	d := newDaemon(options{dir: t.TempDir(), accel: "kvm"})
	m, err := d.create(machineOf("one", annotationVCPUs, "3", annotationMemory, "700", annotationType, "deny-exec"), 1)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(m.qemuCommand(), " ")
	for _, want := range []string{"-accel kvm ", "-smp 3 ", "-m 700M ", "size=700M", "standin.policy=deny-exec"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	small, err := d.create(machineOf("two", annotationVCPUs, "0", annotationMemory, "64"), 1)
	if err != nil || small.asked.memory != minMemory || small.asked.vcpus != 1 {
		t.Errorf("a machine of 64 MiB gets %+v, %v", small.asked, err)
	}
}
