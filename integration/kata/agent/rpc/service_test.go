// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metsuke.dev/metsuke/integration/kata/agent/sandbox"
)

// serve serves an empty sandbox at a socket, and gives a connection to it.
func serve(t *testing.T, p Policy) net.Conn {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	Register(server, sandbox.New(sandbox.Paths{Base: dir, Shared: filepath.Join(dir, "shared")}), p)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(context.Background(), l) }()
	t.Cleanup(func() { _ = server.Close() })
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestCodes(t *testing.T) {
	client := ttrpc.NewClient(serve(t, Policy{}))
	defer func() { _ = client.Close() }()
	agent, ctx := grpc.NewAgentServiceClient(client), t.Context()
	calls := map[string]struct {
		call func() error
		want codes.Code
	}{
		"no such container": {func() error {
			_, err := agent.WaitProcess(ctx, &grpc.WaitProcessRequest{ContainerId: "x"})
			return err
		}, codes.InvalidArgument},
		"a container that is not there, removed": {func() error {
			_, err := agent.RemoveContainer(ctx, &grpc.RemoveContainerRequest{ContainerId: "x"})
			return err
		}, codes.InvalidArgument},
		"removed within some time": {func() error {
			_, err := agent.RemoveContainer(ctx, &grpc.RemoveContainerRequest{ContainerId: "x", Timeout: 60})
			return err
		}, codes.InvalidArgument},
		"a container without a specification": {func() error {
			_, err := agent.CreateContainer(ctx, &grpc.CreateContainerRequest{ContainerId: "abc"})
			return err
		}, codes.Internal},
		"no policy": {func() error { _, err := agent.SetPolicy(ctx, &grpc.SetPolicyRequest{}); return err }, codes.Unimplemented},
		"not there": {func() error { _, err := agent.AddSwap(ctx, &grpc.AddSwapRequest{}); return err }, codes.Unimplemented},
		"health":    {func() error { _, err := grpc.NewHealthClient(client).Check(ctx, &grpc.CheckRequest{}); return err }, codes.OK},
	}
	for name, c := range calls {
		t.Run(name, func(t *testing.T) {
			if err := c.call(); status.Code(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	wrapped := map[error]codes.Code{
		sandbox.ErrNoContainer: codes.InvalidArgument, sandbox.ErrNoInit: codes.NotFound, sandbox.ErrNoExec: codes.NotFound,
		sandbox.ErrNoTerminal: codes.Unavailable, io.ErrClosedPipe: codes.Internal,
	}
	for err, want := range wrapped {
		if got := status.Code(coded(fmt.Errorf("wrapped: %w", err))); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// The events of memory end with the sandbox.
func TestOOMEventEnds(t *testing.T) {
	client := ttrpc.NewClient(serve(t, Policy{}))
	defer func() { _ = client.Close() }()
	agent := grpc.NewAgentServiceClient(client)
	ended := make(chan error)
	go func() {
		_, err := agent.GetOOMEvent(context.Background(), &grpc.GetOOMEventRequest{})
		ended <- err
	}()
	for range 2 {
		if _, err := agent.DestroySandbox(t.Context(), &grpc.DestroySandboxRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; status.Code(err) != codes.Internal {
		t.Errorf("%v, want Internal", err)
	}
}

func TestPolicy(t *testing.T) {
	for list, want := range map[string]Policy{
		"": {}, "deny-create": {DenyCreate: true}, "deny-exec": {DenyExec: true}, "blank-output": {BlankOutput: true},
		"blank-output,deny-exec": {DenyExec: true, BlankOutput: true},
	} {
		if got, err := ParsePolicy(list); err != nil || got != want {
			t.Errorf("%q: %+v, %v", list, got, err)
		}
	}
	for _, list := range []string{"deny-all", "deny-exec blank-output"} {
		if _, err := ParsePolicy(list); err == nil {
			t.Errorf("%q was read", list)
		}
	}
}

// What a policy denies fails with its words. The sandbox's own container is not denied: here its id is "", and it fails for that.
func TestPolicyDenies(t *testing.T) {
	client := ttrpc.NewClient(serve(t, Policy{DenyCreate: true, DenyExec: true}))
	defer func() { _ = client.Close() }()
	agent, ctx := grpc.NewAgentServiceClient(client), t.Context()
	create := func(id string) error {
		_, err := agent.CreateContainer(ctx, &grpc.CreateContainerRequest{ContainerId: id})
		return err
	}
	_, exec := agent.ExecProcess(ctx, &grpc.ExecProcessRequest{ContainerId: "x"})
	for request, err := range map[string]error{"CreateContainerRequest": create("other"), "ExecProcessRequest": exec} {
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), request+" is blocked by policy") {
			t.Errorf("%s: %v, want PermissionDenied", request, err)
		}
	}
	if err := create(""); status.Code(err) != codes.Internal {
		t.Errorf("the sandbox's own container: %v, want Internal", err)
	}
}

func TestPolicyBlanks(t *testing.T) {
	blank, full := agent{policy: Policy{BlankOutput: true}}, agent{}
	if got, err := blank.output([]byte("text"), nil); err != nil || len(got.Data) != 0 {
		t.Errorf("%v, %v; want no data", got, err)
	}
	if _, err := blank.output(nil, sandbox.ErrEOF); !errors.Is(err, sandbox.ErrEOF) {
		t.Errorf("%v, want the end", err)
	}
	if got, err := full.output([]byte("text"), nil); err != nil || string(got.Data) != "text" {
		t.Errorf("%v, %v", got, err)
	}
}

// A message of more than 4 MiB is answered with an error, and the connection lives on. The client's library would not send it.
func TestMessageLimit(t *testing.T) {
	conn := serve(t, Policy{})
	const size = 4<<20 + 1
	header := make([]byte, 10) // length, stream, type (1: a request), flags
	binary.BigEndian.PutUint32(header, size)
	binary.BigEndian.PutUint32(header[4:], 1)
	header[8] = 1
	if _, err := conn.Write(append(header, make([]byte, size)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, header); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, binary.BigEndian.Uint32(header))
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(answer), "exceed maximum message size") {
		t.Errorf("the answer is %q", answer)
	}
}
