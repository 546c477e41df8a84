// SPDX-License-Identifier: Apache-2.0

// Command nodevm runs one command in a virtual machine that stands for a node: a Debian kernel, cgroup v2 with all
// controllers, all capabilities, and this machine's own files, to which nothing that happens inside is written.
//
//	nodevm -kernel DIR COMMAND [ARGUMENT]...
//
// DIR is what `tools/build.sh kernel` prints. The command gets the environment and the working directory of the caller,
// runs as root and reads nothing; what it writes to stdout and stderr comes out on stdout as it is written, and its status
// (128 and the signal's number if one ended it) is nodevm's. So `go test -exec "nodevm -kernel DIR"` runs tests there. A
// failure of the machine itself is status 125. What lies below /run, /dev, /proc and /sys out here is not seen in there.
//
// The machine is QEMU's. Its processors are emulated, unless METSUKE_ACCEL=kvm is set: there are machines whose /dev/kvm
// does not work, and guests hang there. Emulated code is some 16 times slower, so compile outside.
//
// Nothing stays behind, by construction: QEMU and virtiofsd live in a pid namespace that ends with nodevm, even if that is
// killed, and all files and mounts in a tmpfs of a mount namespace of theirs. It needs root, Linux 5.12, and Debian's
// packages qemu-system-x86 and qemu-system-common (or virtiofsd).
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The program runs in three places, told apart by the name that it is run by.
const (
	nameInside = "nodevm-namespaces" // in namespaces of its own on this machine: process 1 there
	nameGuest  = "/init"             // in the virtual machine: process 1 there
)

// failed is the status of a machine that did not run the command to its end.
const failed = 125

// machine is what the caller asks for.
type machine struct {
	kernel string
	job    job
}

// job is the command, as the guest reads it from the initrd.
type job struct {
	Args    []string
	Env     []string
	Dir     string
	Load    []string // kernel modules in the initrd, to be loaded in this order
	Modules string   // the directory of all others
}

func main() {
	switch os.Args[0] {
	case nameGuest:
		guest()
	default:
		code, err := run()
		if err != nil {
			fmt.Fprintln(os.Stderr, "nodevm:", err)
			code = failed
		}
		os.Exit(code)
	}
}

func run() (int, error) {
	var m machine
	flags := flag.NewFlagSet("nodevm", flag.ExitOnError)
	flags.StringVar(&m.kernel, "kernel", "", "`directory` of vmlinuz and modules (tools/build.sh kernel)")
	_ = flags.Parse(os.Args[1:]) // ExitOnError
	if m.kernel == "" || flags.NArg() == 0 {
		flags.Usage()
		return 0, errors.New("needs -kernel and a command")
	}
	m.job.Args, m.job.Env = flags.Args(), os.Environ()
	var err error
	if m.job.Dir, err = os.Getwd(); err != nil {
		return 0, err
	}
	if os.Args[0] == nameInside {
		return m.boot()
	}
	return enter()
}

// enter runs this program again in new pid and mount namespaces, and waits for it. A signal to end, or this process's
// death, ends everything there.
func enter() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("must run as root: it makes namespaces and mounts")
	}
	runtime.LockOSThread() // Pdeathsig acts when the *thread* that forked ends
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{nameInside}, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("enter namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case s := <-signals:
		_ = cmd.Process.Kill() // the kernel ends every process of the namespace with its first
		<-ended                //nolint:errcheck // as the kill has it
		return 128 + int(s.(syscall.Signal)), nil
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), nil
		}
		return 0, err
	}
}
