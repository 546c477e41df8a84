// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that a run started. It ends with the run, even if that is killed.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string        // file of what it prints
	done    chan struct{} // closed when it has ended
	stopped bool          // it was asked to end
}

func start(dir, path string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(path), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // ended tells of it
		close(p.done)
	}()
	return p, nil
}

// ended is nil while the process runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%v): %s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// stop asks the process to end, and makes it end after a while.
func (p *process) stop() {
	p.stopped = true
	_ = p.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

func (p *process) kill() {
	p.stopped = true
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// cpu is the CPU time that the process has used, in seconds (proc_pid_stat(5): utime and stime, in ticks of 10 ms).
func (p *process) cpu() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:]) // from the third on
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat: too few fields")
	}
	var ticks float64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseFloat(string(field), 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return ticks / 100, nil
}

// memory is what is resident of the process, now and at most since it started, in bytes (proc_pid_status(5)).
func (p *process) memory() (now, most uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		for field, to := range map[string]*uint64{"VmRSS:": &now, "VmHWM:": &most} {
			if rest, ok := strings.CutPrefix(line, field); ok {
				if _, err := fmt.Sscanf(rest, "%d kB", to); err != nil {
					return 0, 0, fmt.Errorf("%s: %w", strings.TrimSpace(line), err)
				}
				*to *= 1024
			}
		}
	}
	return now, most, nil
}
