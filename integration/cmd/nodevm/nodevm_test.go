// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is the command, built, and the kernel that it boots.
var program, kernel string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nodevm")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "nodevm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	tools := exec.Command("../../tools/build.sh", "kernel")
	tools.Stderr = os.Stderr
	out, err := tools.Output()
	if err != nil {
		panic(err)
	}
	kernel = strings.TrimSpace(strings.TrimPrefix(string(out), "kernel="))
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// mark is in the environment of all that a test starts.
const mark = "NODEVM_TEST"

func command(t *testing.T, arguments ...string) *exec.Cmd {
	cmd := exec.Command(program, append([]string{"-kernel", kernel}, arguments...)...)
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	return cmd
}

// leftovers are the processes that the test's command has started and that still run, and the mounts that it made.
func leftovers(t *testing.T) (found []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+sharedDir+" ") {
			found = append(found, line)
		}
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, environ := range environs {
		// One that has ended meanwhile is not left over.
		if text, _ := os.ReadFile(environ); bytes.Contains(text, []byte(mark+"="+t.Name()+"\x00")) {
			found = append(found, environ)
		}
	}
	return found
}

func TestNode(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	cmd := command(t, "sh", "-c", `
		uname -r; hostname; pwd; echo "$NODEVM_TEST"
		grep -E 'CapEff|^Pid' /proc/self/status
		cat /sys/fs/cgroup/cgroup.controllers
		ls /dev/vhost-vsock
		ip link add test0 type veth peer name test1 && iptables -t nat -A POSTROUTING -j MASQUERADE && echo network
		mkdir /run/l /run/u /run/w /run/o && mount -t overlay -o lowerdir=/run/l,upperdir=/run/u,workdir=/run/w o /run/o && echo overlay
		echo written >"$0"; cat "$0"
		sleep 1000 & echo error >&2; exit 7`, marker)
	cmd.Dir = "/var"
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("%v, output:\n%s%s", err, out, exit.Stderr)
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if lines[0] == unix.ByteSliceToString(host.Release[:]) {
		t.Errorf("it ran under this machine's kernel, %s", lines[0])
	}
	for _, want := range []string{
		"node\n/var\nTestNode\n", "CapEff:\t000001ffffffffff\n", "cpuset cpu io memory hugetlb pids", "/dev/vhost-vsock\n", "network\noverlay\nwritten\nerror\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	if _, err := os.Stat(marker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was written in the machine is out here: %v", err)
	}
	if left := leftovers(t); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	cmd := command(t, "/nonesuch")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != failed || !strings.Contains(string(out), "/nonesuch") {
		t.Errorf("%v, output:\n%s", err, out)
	}
}

// Output comes as it is written, and whatever ends nodevm ends all that it started.
func TestEndsByASignal(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			cmd := command(t, "sh", "-c", "echo up; exec sleep 1000")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			up := make([]byte, 3)
			if _, err := io.ReadFull(stdout, up); err != nil || string(up) != "up\n" {
				t.Errorf("output %q, %v", up, err)
			}
			if len(leftovers(t)) < 3 { // itself, its namespace's first process, QEMU, virtiofsd
				t.Error("what is left over would not be seen")
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || signal != unix.SIGKILL && exit.ExitCode() != 128+int(signal) {
				t.Errorf("it ended with %v", err)
			}
			// Killed, it cannot wait for the end of its processes.
			for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if len(leftovers(t)) == 0 {
					return
				}
			}
			t.Errorf("left behind: %q", leftovers(t))
		})
	}
}
