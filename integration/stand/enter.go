// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/reaper"
)

// The stage that a run of the program is in, in the environment: absent outside the namespaces, then init, then inside.
const stageVariable = "METSUKE_STAND_STAGE"

const (
	stageInit   = "init"
	stageInside = "inside"
)

// The number that process 1 of the stand has outside, in the environment of the program inside.
const outsidePIDVariable = "METSUKE_STAND_PID"

// EnterCommand is the beginning of a command line that runs a program inside the stand from outside.
func EnterCommand() string {
	return fmt.Sprintf("nsenter -t %s -m -n -p -i -u -C", os.Getenv(outsidePIDVariable))
}

// Enter runs the calling program again inside the stand's namespaces, and returns only there. Outside it waits for that
// run, removes what it made, and exits with its status; on any failure it prints why and exits with 1.
//
// sets names the tool sets to build (see tools/build.sh): "containerd2", "containerd1", "runc", "cni", "critools".
// Call it first in main or TestMain, before any goroutine that matters.
func Enter(sets ...string) {
	EnterPrepared(func() ([]string, func() error, error) { return sets, func() error { return nil }, nil })
}

// EnterPrepared is [Enter] with work of the caller's outside: prepare runs first, and says which tool sets to build; release, which is
// for what namespaces do not hold back, runs when all that was in them has ended. What prepare puts into the environment is there
// inside too.
func EnterPrepared(prepare func() (sets []string, release func() error, err error)) {
	switch os.Getenv(stageVariable) {
	case stageInside:
		if err := os.Unsetenv(stageVariable); err != nil {
			fail(err)
		}
	case stageInit:
		code, err := runInit()
		if err != nil {
			fail(err)
		}
		os.Exit(code)
	default:
		code, err := runOutside(prepare)
		if err != nil {
			fail(err)
		}
		os.Exit(code)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "stand:", err)
	os.Exit(1)
}

// runOutside builds what needs the network, makes the cgroups, and runs stage init in new namespaces.
func runOutside(prepare func() ([]string, func() error, error)) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("must run as root: it makes namespaces, cgroups and containers")
	}
	sets, release, err := prepare()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := build(sets); err != nil {
		return 0, err
	}

	// Pdeathsig acts when the *thread* that forked ends, so this one must stay.
	runtime.LockOSThread()

	groups, err := newCgroups()
	if err != nil {
		return 0, errors.Join(err, groups.remove())
	}
	defer func() {
		err = errors.Join(err, groups.remove())
	}()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)

	// A cgroup namespace is rooted where its first process is, so this process goes in for the time of the fork.
	if err := groups.enter(); err != nil {
		return 0, errors.Join(err, groups.leave())
	}
	cmd := reexec(stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
	}
	// Process 1 cannot learn by itself which number it has outside, so it is told.
	number, told, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(err, groups.leave())
	}
	cmd.ExtraFiles = []*os.File{number} // descriptor 3
	startErr := cmd.Start()
	_ = number.Close()
	if startErr == nil {
		_, startErr = fmt.Fprintln(told, cmd.Process.Pid)
	}
	_ = told.Close()
	if err := errors.Join(startErr, groups.leave()); err != nil {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		return 0, fmt.Errorf("enter namespaces: %w", err)
	}

	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(done)
	if status, ok := exitStatus(err); ok {
		return status, nil
	}
	return 0, err
}

// runInit is process 1 of the stand: it sets the namespaces up, runs the program in stage inside, and reaps.
func runInit() (int, error) {
	if err := setUpNamespaces(); err != nil {
		return 0, err
	}
	var outside int
	if _, err := fmt.Fscan(os.NewFile(3, "number"), &outside); err != nil {
		return 0, fmt.Errorf("learn the process's number outside: %w", err)
	}
	if err := os.Setenv(outsidePIDVariable, strconv.Itoa(outside)); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)

	unix.CloseOnExec(3)
	cmd := reexec(stageInside)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run the program inside: %w", err)
	}
	program := cmd.Process.Pid
	go func() {
		for s := range signals {
			_ = unix.Kill(program, s.(syscall.Signal))
		}
	}()

	// Orphans (a shim whose parent ended, what a killed runc leaves) come here. The kernel ends what is left when this process exits.
	status, err := reaper.Wait(program)
	if err != nil {
		return 0, fmt.Errorf("wait for the program: %w", err)
	}
	return status, nil
}

// reexec is this program again, with the same arguments and streams, in another stage.
func reexec(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, stageVariable+"=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, stageVariable+"="+stage)
	return cmd
}

func exitStatus(err error) (int, bool) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), true
		}
		return status.ExitStatus(), true
	}
	return 0, false
}
