// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runs is a sandbox with one container "c", in which a shell's command is the exec "e".
func runs(t *testing.T, command string) (*Sandbox, *process) {
	t.Helper()
	p := &process{id: "e", exited: make(chan struct{})}
	child, err := p.pipes()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = child[0], child[1], child[2]
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range child {
		_ = f.Close()
	}
	p.pid = cmd.Process.Pid
	go p.reap() // and never cmd.Wait
	t.Cleanup(func() {
		_ = unix.Kill(-p.pid, unix.SIGKILL) // its children too
		<-p.exited
		p.close()
	})
	s := New(Paths{})
	s.containers["c"] = &container{id: "c", state: running, processes: map[string]*process{"e": p}}
	return s, p
}

func readAll(t *testing.T, read func(id, exec string, length uint32) ([]byte, error)) string {
	t.Helper()
	var all bytes.Buffer
	for {
		data, err := read("c", "e", 3)
		if errors.Is(err, ErrEOF) {
			return all.String()
		}
		if err != nil || len(data) == 0 || len(data) > 3 {
			t.Fatalf("read: %q, %v", data, err)
		}
		all.Write(data)
	}
}

func TestStreams(t *testing.T) {
	s, _ := runs(t, "cat; echo error >&2")
	if err := s.WriteStdin("c", "e", []byte("some text")); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteStdin("c", "e", nil); err != nil {
		t.Fatal(err)
	}
	if said := readAll(t, s.ReadStdout); said != "some text" {
		t.Errorf("output %q", said)
	}
	if said := readAll(t, s.ReadStderr); said != "error\n" {
		t.Errorf("errors %q", said)
	}
	if err := s.WriteStdin("c", "e", []byte("more")); err == nil {
		t.Error("a closed input was written to")
	}
	if err := s.Resize("c", "e", 1, 1); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("Resize: %v", err)
	}
	if code, err := s.Wait(t.Context(), "c", "e"); code != 0 || err != nil {
		t.Errorf("Wait: %d, %v", code, err)
	}
}

// What was written before the end is read although a child keeps the output open, and then there is an end.
func TestReadsEndWithTheProcess(t *testing.T) {
	s, p := runs(t, "sleep 1000 & echo text")
	<-p.exited
	if said := readAll(t, s.ReadStdout); said != "text\n" {
		t.Errorf("output %q", said)
	}
}

func TestWaitTellsAll(t *testing.T) {
	s, p := runs(t, "read x; exit 7")
	code := make(chan int)
	for range 3 {
		go func() {
			got, err := s.Wait(t.Context(), "c", "e")
			if err != nil {
				t.Error(err)
			}
			code <- got
		}()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Wait(canceled, "c", "e"); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that is given up: %v", err)
	}
	// A waiter that comes after the first has been told finds nothing, so all must have found the process by now.
	stacks := make([]byte, 1<<20)
	for waiting := 0; waiting < 3; time.Sleep(time.Millisecond) {
		waiting = 0
		for goroutine := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(goroutine, "[select") && strings.Contains(goroutine, "sandbox.(*Sandbox).Wait(") {
				waiting++
			}
		}
	}
	p.closeStdin()
	for range 3 {
		if got := <-code; got != 7 {
			t.Errorf("exit code %d, want 7", got)
		}
	}
	if _, err := s.Wait(t.Context(), "c", "e"); !errors.Is(err, ErrNoExec) {
		t.Errorf("a wait after that: %v", err)
	}
}

func TestSignalCode(t *testing.T) {
	s, _ := runs(t, "exec sleep 1000")
	if err := s.Signal("c", "e", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := s.Wait(t.Context(), "c", "e"); code != 137 || err != nil {
		t.Errorf("%d, %v; want 137", code, err)
	}
}

func TestNotFound(t *testing.T) {
	s, _ := runs(t, "exit")
	for _, test := range []struct {
		id, exec string
		want     error
	}{{"x", "e", ErrNoContainer}, {"c", "x", ErrNoExec}, {"c", "", ErrNoInit}} {
		if _, err := s.Wait(t.Context(), test.id, test.exec); !errors.Is(err, test.want) {
			t.Errorf("%q, %q: %v, want %v", test.id, test.exec, err, test.want)
		}
	}
}

func TestHeeds(t *testing.T) {
	const term = "0000000000004000"
	tests := map[string]struct {
		status string
		want   bool
	}{
		"none":       {"SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n", false},
		"handled":    {"SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t" + term + "\n", true},
		"ignored":    {"SigIgn:\t" + term + "\n", true},
		"blocked":    {"SigBlk:\t" + term + "\n", true},
		"pending":    {"SigPnd:\t" + term + "\nShdPnd:\t" + term + "\n", false},
		"others":     {"SigCgt:\tffffffffffffbfff\n", false},
		"not a mask": {"SigCgt:\tterm\n", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := heedsIn(test.status, unix.SIGTERM); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if heeds(os.Getpid(), 0) || heeds(os.Getpid(), 65) || heeds(0, unix.SIGTERM) {
		t.Error("signals or processes that do not exist are heeded")
	}
	if !heeds(os.Getpid(), unix.SIGURG) {
		t.Error("a Go program handles SIGURG")
	}
}
