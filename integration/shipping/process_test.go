// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long is waited for anything at most: a machine may be slow, and how fast it is is not what is tested.
const patience = 5 * time.Minute

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// process is a program that a test started. It ends with the test, even if that is killed.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file of what it prints
	done chan struct{} // closed when it has ended
}

// start starts a program whose working directory and log are in dir. When the test fails, the end of its log is shown.
func start(t *testing.T, dir, path string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(path), cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // what its end says, waiters find in cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s printed at last:\n%s", p.name, p.tail())
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-6000):])
}

// says waits until the process has printed a text, since it has printed the first n bytes.
func (p *process) says(t *testing.T, text string, n int) {
	t.Helper()
	until(t, p.name+" says: "+text, func() bool {
		data, err := os.ReadFile(p.log)
		return err == nil && len(data) >= n && strings.Contains(string(data[n:]), text)
	})
}

// printed is how many bytes the process has printed.
func (p *process) printed(t *testing.T) int {
	t.Helper()
	info, err := os.Stat(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}

// serving waits until a process listens at an address.
func (p *process) serving(t *testing.T, address string) {
	t.Helper()
	until(t, p.name+" listens at "+address, func() bool {
		if p.ended() {
			t.Fatalf("%s has ended (%v)", p.name, p.cmd.ProcessState)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

// address is one of this machine that nobody listens at. In the tests' own network namespace it stays so.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// write writes a file that only its owner may read, and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fill replaces {NAME} by values, which come as pairs of name and value.
func fill(template string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		template = strings.ReplaceAll(template, "{"+pairs[i]+"}", pairs[i+1])
	}
	return template
}
