// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/shim/proxy"
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

// ask makes a call of our own to the delegate.
func (s *Service) ask(ctx context.Context, method string, req, resp proto.Message) error {
	return proxy.Invoke(ctx, s.Pod.Dial, s.Pod.TaskService(), method, req, resp)
}
