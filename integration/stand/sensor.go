// SPDX-License-Identifier: Apache-2.0

package stand

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sensor watches a process from the host, by strace(1): it counts the system calls of all its threads. It stands for
// whatever looks at a virtual machine from outside.
type Sensor struct {
	cmd   *exec.Cmd
	table string // where strace writes its counts
}

// Watch attaches a sensor to a process. Counts or Close detach it.
func Watch(pid int) (*Sensor, error) {
	s := &Sensor{table: filepath.Join(Dir, fmt.Sprintf("strace.%d", pid))}
	s.cmd = exec.Command("strace", "-f", "-c", "-U", "calls,name", "-o", s.table, "-p", strconv.Itoa(pid))
	messages, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(messages)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		s.Close()
		return nil, fmt.Errorf("attach strace to process %d: %q, %w", pid, line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return s, nil
}

// Close detaches the sensor; more than once is no error.
func (s *Sensor) Close() {
	s.detach()
	_ = os.Remove(s.table) // not there, if nothing was attached
}

func (s *Sensor) detach() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(unix.SIGINT)
		_ = s.cmd.Wait() // ends as the signal has it
	}
}

// Counts detaches the sensor and returns how often it saw each call. A sensor that saw none is an error: every process that
// runs makes some.
func (s *Sensor) Counts() (map[string]int, error) {
	s.detach()
	defer s.Close()
	content, err := os.ReadFile(s.table)
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(content)) {
		// A head and a sum are among the lines.
		var count int
		var name string
		if n, _ := fmt.Sscan(line, &count, &name); n == 2 && name != "total" {
			seen[name] = count
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("strace saw nothing:\n%s", content)
	}
	return seen, nil
}
