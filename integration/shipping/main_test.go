// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What the run outside the namespaces tells the one inside: the directories of the tools, by set.
const toolVariable = "METSUKE_SHIPPING_"

var sets = []string{"nats", "kafka", "collector"}

func TestMain(m *testing.M) {
	if os.Getenv(toolVariable+sets[0]) == "" {
		status, err := runInside()
		if err != nil {
			fmt.Fprintln(os.Stderr, "shipping:", err)
			status = 1
		}
		os.Exit(status)
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "shipping:", err)
		os.Exit(1)
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait most of the time
		fmt.Fprintln(os.Stderr, "shipping:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// tool is the directory of a set.
func tool(set string) string { return os.Getenv(toolVariable + set) }

// metsuke is the program under test.
func metsuke(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("METSUKE_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(bin, "metsuke"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v (make build makes it)", err)
	}
	return path
}

// runInside builds what needs the network, and runs this program again in namespaces of its own.
func runInside() (status int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("must run as root: it makes namespaces")
	}
	build := exec.Command("../tools/build.sh", sets...)
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		return 1, fmt.Errorf("build the programs: %w", err)
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = os.Environ()
	for line := range strings.Lines(string(out)) {
		again.Env = append(again.Env, toolVariable+strings.TrimSpace(line)) // SET=DIRECTORY
	}
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig acts when the thread that forked ends
	err = again.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// setUp makes the namespaces usable: mounts stay inside, and there is a loopback interface.
func setUp() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
