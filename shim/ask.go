// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// signal has the delegate signal a process on our own account: all of the container's if exec is empty.
func (s *Service) signal(ctx context.Context, id, exec string, sig unix.Signal) error {
	req := &taskapi.KillRequest{ID: id, ExecID: exec, Signal: uint32(sig), All: exec == ""}
	if err := s.ask(ctx, "Kill", req, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("have the delegate kill container %s: %w", id, err)
	}
	return nil
}

// deleteTask has the delegate delete a container that was created and not started.
func (s *Service) deleteTask(ctx context.Context, id string) error {
	if err := s.ask(ctx, "Delete", &taskapi.DeleteRequest{ID: id}, &taskapi.DeleteResponse{}); err != nil {
		return fmt.Errorf("have the delegate delete container %s: %w", id, err)
	}
	return nil
}

// ask makes a call of our own to the delegate. It is rare, so it makes a connection of its own.
func (s *Service) ask(ctx context.Context, method string, req, resp proto.Message) error {
	conn, err := s.Pod.Dial(ctx)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	return client.Call(ctx, s.Pod.TaskService(), method, req, resp)
}
