// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
)

// Pod is what the daemon knows of its pod. It does not change.
type Pod struct {
	State
	Settings Settings
}

// Dial connects to the delegate's Task API.
func (p *Pod) Dial(ctx context.Context) (net.Conn, error) { return p.Delegate.Dial(ctx) }

// TaskService is the name of the delegate's Task service, for calls of our own.
func (s *State) TaskService() string {
	return fmt.Sprintf("containerd.task.v%d.Task", s.Delegate.Version)
}

// Record writes a container's record into its bundle, replacing the one that is there. owner is kept for the delete
// action to find (Record.Owner); it must encode to JSON. It is to be called in each Create, before the delegate's:
// containerd 2 does not run start for the containers of a pod that is there already.
func (p *Pod) Record(bundle, container string, owner any) error {
	raw, err := json.Marshal(owner)
	if err != nil {
		return fmt.Errorf("record of container %s: %w", container, err)
	}
	return writeRecord(bundle, &Record{State: p.State, Container: container, Owner: raw})
}

// CloseRecord marks a container's record as done with, once its Delete has succeeded or its Create has failed: without
// it the delete action that follows reports the container as lost. A bundle that is gone is fine.
func (p *Pod) CloseRecord(bundle string) error {
	r, err := ReadRecord(bundle)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Closed = true
	return writeRecord(bundle, r)
}
