// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// runcCreate makes a container of the bundle. The limits are not runc's to set (see [cgroup.Group.Set]), and devices are not
// restricted, because neither is what the real agent does on cgroup v2 for requests of the shims.
func (s *Sandbox) runcCreate(c *container, oci *specs.Spec) (*process, error) {
	forRunc := *oci
	linux := *oci.Linux
	linux.CgroupsPath = strings.TrimPrefix(string(c.group), s.paths.Cgroups)
	linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	forRunc.Linux = &linux
	if err := writeJSON(filepath.Join(c.bundle, "config.json"), &forRunc); err != nil {
		return nil, err
	}
	return s.launch(c, c.id, oci.Process, "create", "--bundle", c.bundle)
}

// runcExec starts a process in a container, whether that is started or not.
func (s *Sandbox) runcExec(c *container, exec string, p *specs.Process) (*process, error) {
	file := filepath.Join(c.bundle, "process.json")
	if err := writeJSON(file, p); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(file) }() // the next exec writes it anew
	return s.launch(c, exec, p, "exec", "--detach", "--process", file)
}

// launch runs a runc command that leaves a process behind, and gives that process. The caller holds s.making.
func (s *Sandbox) launch(c *container, exec string, p *specs.Process, command ...string) (*process, error) {
	out := &process{id: exec, first: exec == c.id, exited: make(chan struct{})}
	var console *consoleSocket
	var child [3]*os.File
	var err error
	if p.Terminal {
		if console, err = listenConsole(filepath.Join(c.bundle, "console")); err != nil {
			return nil, err
		}
		defer console.close()
		command = append(command, "--console-socket", console.path)
	} else if child, err = out.pipes(); err != nil {
		return nil, err
	}
	if err := s.run(out, child, command, c); err != nil {
		out.close()
		return nil, err
	}
	go func() {
		out.reap()
		s.children.reaped(out)
	}()
	if console != nil {
		if out.terminal, err = console.receive(); err != nil {
			out.kill()
			return nil, err
		}
	}
	return out, nil
}

// run runs the command that makes the process, and learns its number.
func (s *Sandbox) run(out *process, child [3]*os.File, command []string, c *container) (err error) {
	s.children.mu.Lock()
	defer s.children.mu.Unlock()
	pidFile := filepath.Join(c.bundle, "pid")
	err = s.runcWith(child, append(command, "--pid-file", pidFile, c.id)...)
	for _, f := range child {
		if f != nil {
			_ = f.Close() // the process has its own
		}
	}
	if err != nil {
		return err
	}
	if out.pid, err = readPID(pidFile); err != nil {
		return err
	}
	s.children.process[out.pid] = out
	return nil
}

func (s *Sandbox) runc(arguments ...string) error { return s.runcWith([3]*os.File{}, arguments...) }

// runcWith runs runc, with the given files as its standard input and outputs, and fails with what runc says.
func (s *Sandbox) runcWith(stdio [3]*os.File, arguments ...string) error {
	messages, err := os.CreateTemp("", "runc-*.json")
	if err != nil {
		return fmt.Errorf("run runc: %w", err)
	}
	defer func() { _ = errors.Join(messages.Close(), os.Remove(messages.Name())) }()
	cmd := exec.Command(s.paths.Runc, append([]string{
		"--root", s.paths.RuncState, "--log", messages.Name(), "--log-format", "json"}, arguments...)...)
	// Assigned one by one: a nil *os.File in an interface is not nil.
	if stdio[0] != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	}
	if err := cmd.Run(); err != nil {
		if said := lastMessage(messages.Name()); said != "" {
			return fmt.Errorf("runc %s: %s", arguments[0], said)
		}
		return fmt.Errorf("runc %s: %w", arguments[0], err)
	}
	return nil
}

// lastMessage is the last error in runc's log, or "".
func lastMessage(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}

func writeJSON(file string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o600)
}

func readPID(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("learn a process's number: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("learn a process's number: %w", err)
	}
	return pid, nil
}
