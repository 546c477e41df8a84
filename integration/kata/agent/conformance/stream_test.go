// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"strings"
	"testing"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
)

func writeStdin(t *testing.T, id, eid, text string) {
	t.Helper()
	answer, err := agent.WriteStdin(t.Context(), &grpc.WriteStreamRequest{ContainerId: id, ExecId: eid, Data: []byte(text)})
	if err != nil || answer.Len != uint32(len(text)) {
		t.Fatalf("WriteStdin: %v, %v", answer, err)
	}
}

func TestStdin(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	ends := map[string]func(eid string) error{
		"CloseStdin": func(eid string) error {
			_, err := agent.CloseStdin(context.Background(), &grpc.CloseStdinRequest{ContainerId: id, ExecId: eid})
			return err
		},
		"empty write": func(eid string) error {
			_, err := agent.WriteStdin(context.Background(), &grpc.WriteStreamRequest{ContainerId: id, ExecId: eid})
			return err
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			eid := spawn(t, id, process("cat"))
			text := strings.Repeat("line\n", 1000)
			writeStdin(t, id, eid, text)
			writeStdin(t, id, eid, "last")
			if err := end(eid); err != nil {
				t.Fatal(err)
			}
			if said := finish(t, id, eid); said != text+"last" {
				t.Errorf("%d bytes came back of %d", len(said), len(text)+4)
			}
		})
	}
}

// A read ends although a child has the output open for ever, and it gives what was written before the end.
func TestReadAfterExit(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	eid := spawn(t, id, process("leave"))
	if said := readAll(t, agent.ReadStdout, id, eid); said != "left\n" {
		t.Errorf("the output is %q", said)
	}
	if code := wait(t, id, eid); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := agent.ReadStdout(t.Context(), &grpc.ReadStreamRequest{ContainerId: id, ExecId: eid, Len: 1}); err == nil {
		t.Error("the output of a process that was waited for can be read")
	}
}

func TestLargeOutput(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	if said := output(t, id, "cat", "/bin/probe"); len(said) < 1<<20 {
		t.Errorf("%d bytes came of a file of more than 1 MiB", len(said))
	}
}

func TestTerminal(t *testing.T) {
	id := start(t, request(newID(), "sleep"))
	p := process("cat")
	p.Terminal = true
	eid := spawn(t, id, p)
	size := &grpc.TtyWinResizeRequest{ContainerId: id, ExecId: eid, Row: 33, Column: 77}
	if _, err := agent.TtyWinResize(t.Context(), size); err != nil {
		t.Errorf("TtyWinResize: %v", err)
	}
	writeStdin(t, id, eid, "hello\n\x04") // ^D
	if said := readAll(t, agent.ReadStdout, id, eid); said != "hello\r\nhello\r\n" {
		t.Errorf("the terminal says %q, want an echo and a line", said)
	}
	if code := wait(t, id, eid); code != 0 {
		t.Errorf("exit code %d", code)
	}

	p = process("size")
	p.Terminal = true
	eid = spawn(t, id, p)
	readUntil(t, id, eid, "ready")
	size.ExecId = eid
	if _, err := agent.TtyWinResize(t.Context(), size); err != nil {
		t.Errorf("TtyWinResize: %v", err)
	}
	if said := finish(t, id, eid); strings.TrimSpace(said) != "33 77" {
		t.Errorf("after the change the terminal's size is %q, want 33 77", said)
	}

	eid = spawn(t, id, process("sleep"))
	size.ExecId = eid
	if _, err := agent.TtyWinResize(t.Context(), size); err == nil {
		t.Error("a process without a terminal was resized")
	}
	kill(t, id, eid, unix.SIGKILL)
	wait(t, id, eid)
}
