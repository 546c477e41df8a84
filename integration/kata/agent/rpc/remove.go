// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"errors"
	"time"

	grpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
)

// removeContainer removes a container, within the seconds that the request gives if it gives some; after them it fails, and
// the removal goes on (AG/rpc.rs do_remove_container).
func (a agent) removeContainer(r *grpc.RemoveContainerRequest) error {
	if r.Timeout == 0 {
		return a.sandbox.Remove(r.ContainerId)
	}
	done := make(chan error, 1)
	go func() { done <- a.sandbox.Remove(r.ContainerId) }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Duration(r.Timeout) * time.Second):
		return errors.New("ETIME: Timer expired")
	}
}
