// SPDX-License-Identifier: Apache-2.0

// Package rpc serves the protocol of Kata's guest agent, grpc.AgentService and grpc.Health over ttrpc. A method that is not in
// its table is answered as not implemented, SetPolicy among them, as by a real agent that was built without a policy.
package rpc

import (
	"context"
	"errors"

	"github.com/containerd/ttrpc"
	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/integration/kata/agent/sandbox"
)

// Version is what the agent says that it is.
const Version = "4.1.0-standin"

// Register puts both services into a server. The server refuses a message of more than 4 MiB, as the real one's library does.
func Register(server *ttrpc.Server, s *sandbox.Sandbox, p Policy) {
	a := agent{sandbox: s, policy: p}
	server.RegisterService("grpc.AgentService", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"CreateSandbox":                  empty(s.Create),
		"DestroySandbox":                 empty(func(*grpc.DestroySandboxRequest) error { return s.Destroy() }),
		"CreateContainer":                empty(a.createContainer),
		"StartContainer":                 empty(func(r *grpc.StartContainerRequest) error { return s.StartContainer(r.ContainerId) }),
		"RemoveContainer":                empty(a.removeContainer),
		"ExecProcess":                    empty(a.execProcess),
		"SignalProcess":                  empty(a.signalProcess),
		"WaitProcess":                    method(a.waitProcess),
		"UpdateContainer":                empty(a.updateContainer),
		"StatsContainer":                 method(a.statsContainer),
		"PauseContainer":                 empty(func(r *grpc.PauseContainerRequest) error { return s.Pause(r.ContainerId) }),
		"ResumeContainer":                empty(func(r *grpc.ResumeContainerRequest) error { return s.Resume(r.ContainerId) }),
		"WriteStdin":                     method(a.writeStdin),
		"ReadStdout":                     method(a.readStdout),
		"ReadStderr":                     method(a.readStderr),
		"CloseStdin":                     empty(a.closeStdin),
		"TtyWinResize":                   empty(a.ttyWinResize),
		"CopyFile":                       empty(s.CopyFile),
		"GetOOMEvent":                    method(a.getOOMEvent),
		"GetGuestDetails":                method(a.getGuestDetails),
		"GetMetrics":                     method(a.getMetrics),
		"RemoveStaleVirtiofsShareMounts": empty(func(*grpc.RemoveStaleVirtiofsShareMountsRequest) error { return nil }),
	}})
	grpc.RegisterHealthService(server, health{})
}

// method makes a ttrpc method of a function.
func method[Request, Response any](f func(context.Context, *Request) (*Response, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request := new(Request)
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		response, err := f(ctx, request)
		if err != nil {
			return nil, coded(err)
		}
		return response, nil
	}
}

// empty is [method] for what has nothing to answer.
func empty[Request any](f func(*Request) error) ttrpc.Method {
	return method(func(_ context.Context, r *Request) (*emptypb.Empty, error) { return &emptypb.Empty{}, f(r) })
}

// coded gives an error the code of the real agent's answer (AG/rpc.rs sandbox_err_to_ttrpc, tty_win_resize).
func coded(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Internal
	switch {
	case errors.Is(err, sandbox.ErrNoContainer):
		code = codes.InvalidArgument
	case errors.Is(err, sandbox.ErrNoInit), errors.Is(err, sandbox.ErrNoExec):
		code = codes.NotFound
	case errors.Is(err, sandbox.ErrNoTerminal):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}

type agent struct {
	sandbox *sandbox.Sandbox
	policy  Policy
}

// createContainer refuses what a policy does: a container that is not as the policy has it. The pod's own passes, since it is.
func (a agent) createContainer(r *grpc.CreateContainerRequest) error {
	if a.policy.DenyCreate && !a.sandbox.Own(r.ContainerId) {
		return blocked("CreateContainerRequest")
	}
	return a.sandbox.CreateContainer(r)
}

// blocked is the answer to a request that a policy denies (AG/policy.rs is_allowed, which ends with what the policy printed).
func blocked(request string) error {
	return status.Error(codes.PermissionDenied, request+" is blocked by policy: ")
}

func (a agent) execProcess(r *grpc.ExecProcessRequest) error {
	if a.policy.DenyExec {
		return blocked("ExecProcessRequest")
	}
	return a.sandbox.Exec(r)
}

func (a agent) signalProcess(r *grpc.SignalProcessRequest) error {
	return a.sandbox.Signal(r.ContainerId, r.ExecId, unix.Signal(r.Signal))
}

func (a agent) updateContainer(r *grpc.UpdateContainerRequest) error {
	return a.sandbox.Update(r.ContainerId, r.Resources)
}

func (a agent) closeStdin(r *grpc.CloseStdinRequest) error {
	return a.sandbox.CloseStdin(r.ContainerId, r.ExecId)
}

func (a agent) ttyWinResize(r *grpc.TtyWinResizeRequest) error {
	return a.sandbox.Resize(r.ContainerId, r.ExecId, r.Row, r.Column)
}

func (a agent) waitProcess(ctx context.Context, r *grpc.WaitProcessRequest) (*grpc.WaitProcessResponse, error) {
	code, err := a.sandbox.Wait(ctx, r.ContainerId, r.ExecId)
	return &grpc.WaitProcessResponse{Status: int32(code)}, err
}

func (a agent) statsContainer(_ context.Context, r *grpc.StatsContainerRequest) (*grpc.StatsContainerResponse, error) {
	stats, err := a.sandbox.Stats(r.ContainerId)
	return &grpc.StatsContainerResponse{CgroupStats: stats}, err
}

func (a agent) writeStdin(_ context.Context, r *grpc.WriteStreamRequest) (*grpc.WriteStreamResponse, error) {
	return &grpc.WriteStreamResponse{Len: uint32(len(r.Data))}, a.sandbox.WriteStdin(r.ContainerId, r.ExecId, r.Data)
}

func (a agent) readStdout(_ context.Context, r *grpc.ReadStreamRequest) (*grpc.ReadStreamResponse, error) {
	return a.output(a.sandbox.ReadStdout(r.ContainerId, r.ExecId, r.Len))
}

func (a agent) readStderr(_ context.Context, r *grpc.ReadStreamRequest) (*grpc.ReadStreamResponse, error) {
	return a.output(a.sandbox.ReadStderr(r.ContainerId, r.ExecId, r.Len))
}

// output answers a read. A policy that denies it does not make it fail: the data are taken out of the answer (AG/rpc.rs:1131).
func (a agent) output(data []byte, err error) (*grpc.ReadStreamResponse, error) {
	if a.policy.BlankOutput {
		data = nil
	}
	return &grpc.ReadStreamResponse{Data: data}, err
}

func (a agent) getOOMEvent(ctx context.Context, _ *grpc.GetOOMEventRequest) (*grpc.OOMEvent, error) {
	id, err := a.sandbox.OOMEvent(ctx)
	return &grpc.OOMEvent{ContainerId: id}, err
}
