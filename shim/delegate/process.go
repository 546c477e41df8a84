// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for good: a pid comes again, with its start time and the boot it does not.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // in clock ticks after boot: field 22 of /proc/pid/stat
	BootID    string `json:"bootID"`    // /proc/sys/kernel/random/boot_id
}

// Identify returns the process that has this pid now.
func Identify(pid int) (Process, error) {
	st, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	boot, err := bootID()
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, StartTime: st.start, BootID: boot}, nil
}

// Alive says that the process runs. A zombie does not.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	if boot, err := bootID(); err != nil || boot != p.BootID {
		return false
	}
	st, err := readStat(p.PID)
	return err == nil && st.start == p.StartTime && st.state != 'Z' && st.state != 'X'
}

// open returns a pidfd of the process, or os.ErrProcessDone.
func (p Process) open() (*os.File, error) {
	if p.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	// PIDFD_NONBLOCK (Linux 5.10) is O_NONBLOCK: with it the runtime's poller takes the descriptor.
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", p.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Looked at after it was opened, so the descriptor is of that process and no later one with its pid.
	if !p.Alive() {
		f.Close()
		return nil, os.ErrProcessDone
	}
	return f, nil
}

// Wait returns when the process has ended, or with ctx's error. It occupies no thread.
func (p Process) Wait(ctx context.Context) error {
	f, err := p.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return waitPidfd(ctx, f)
}

// Kill ends the process with SIGKILL and waits until it is gone, or ctx ends.
func (p Process) Kill(ctx context.Context) error {
	f, err := p.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	var killErr error
	if err := raw.Control(func(fd uintptr) {
		killErr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	}); err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if killErr != nil && !errors.Is(killErr, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, killErr)
	}
	return waitPidfd(ctx, f)
}

// waitPidfd waits until a pidfd is readable, which it is when its process has ended.
func waitPidfd(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for a process: %w", err)
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, perr := unix.Poll(fds, 0)
		return perr == nil && n > 0
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("wait for a process: %w", err)
}

type stat struct {
	state byte
	ppid  int
	start uint64
}

// readStat reads /proc/pid/stat (proc_pid_stat(5)). The command may hold anything, so fields count from its last ")".
func readStat(pid int) (stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return parseStat(data)
}

func parseStat(data []byte) (stat, error) {
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return stat{}, fmt.Errorf("process stat %.80q: no command", data)
	}
	fields := strings.Fields(string(data[i+1:])) // from field 3 on
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("process stat %.80q: too short", data)
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("process stat %.80q: %w", data, err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process stat %.80q: %w", data, err)
	}
	return stat{state: fields[0][0], ppid: ppid, start: start}, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return string(bytes.TrimSpace(data)), nil
}
