// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The descriptors that the daemon inherits.
const (
	fdTask   = 3 + iota // listening socket for containerd
	fdEvents            // listening socket for the delegate's events
	fdReady             // pipe: readyWord, or what went wrong
	fdLock              // the pod's lock
)

const readyWord = "ready"

// spawn runs the daemon and returns when it serves. It outlives us: a process group of its own, and nothing of
// containerd's for standard input and output.
func spawn(ctx context.Context, st *State, task, events *net.UnixListener, lock *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own executable: %w", err)
	}
	taskFile, err := task.File()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer taskFile.Close()
	eventsFile, err := events.File()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer eventsFile.Close()
	ready, word, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer ready.Close()
	args := []string{
		"-namespace", st.Namespace, "-id", st.ID, "-address", st.Containerd, "-bundle", st.Bundle, "-pod-dir", st.Dir,
	}
	if st.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, append(args, "serve")...)
	cmd.Dir = "/" // a bundle is removed when its container is
	cmd.Env = daemonEnv(os.Environ())
	cmd.ExtraFiles = []*os.File{taskFile, eventsFile, word, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	word.Close()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	err = adjustOOMScore(cmd.Process.Pid)
	if err == nil {
		err = awaitReady(ctx, ready)
	}
	if err != nil {
		cmd.Process.Kill()
		_ = cmd.Wait() // killed
		return fmt.Errorf("daemon: %w", err)
	}
	return cmd.Process.Release()
}

// daemonEnv is the environment of the daemon. The garbage collector is told to keep the heap small: there is one
// daemon for each pod, and its heap is a few hundred kilobytes.
func daemonEnv(env []string) []string {
	env = append(env, "GOGC=40")
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, "GOMAXPROCS=2")
	}
	return env
}

func awaitReady(ctx context.Context, r *os.File) error {
	deadline := time.Now().Add(readyPatience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := r.SetReadDeadline(deadline); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case err != nil:
		return fmt.Errorf("not ready: %w", err)
	case string(data) == readyWord:
		return nil
	case len(bytes.TrimSpace(data)) == 0:
		return errors.New("it ended before it was ready; see containerd's log")
	}
	return errors.New(string(data))
}

// adjustOOMScore gives the daemon the score of our parent and one more, as containerd's shims have it: containerd is
// the last to be killed, its shims come before it, workloads long before both.
func adjustOOMScore(pid int) error {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/oom_score_adj")
	if err != nil {
		return fmt.Errorf("OOM score: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("OOM score: %w", err)
	}
	name := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	err = os.WriteFile(name, []byte(strconv.Itoa(min(score+1, 1000))), 0)
	if err != nil && !errors.Is(err, os.ErrPermission) { // in a user namespace, where it does not matter
		return fmt.Errorf("OOM score: %w", err)
	}
	return nil
}
