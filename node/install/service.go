// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"time"

	"metsuke.dev/metsuke/node/containerd"
	"metsuke.dev/metsuke/node/cri"
	"metsuke.dev/metsuke/node/tree"
)

// NewService is the containerd that serves at a socket of the node and runs as a unit of its systemd; unit is nil if it does not, and
// then it cannot be restarted.
func NewService(t *tree.Tree, address string, unit *containerd.Unit) Service {
	return &service{t, address, unit}
}

type service struct {
	tree    *tree.Tree
	address string
	unit    *containerd.Unit
}

// patience is how long one question to containerd may take.
const patience = 30 * time.Second

// with calls ask with a client. Each call has a connection of its own: between two of them containerd may have been restarted.
func (s *service) with(ctx context.Context, ask func(context.Context, *cri.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	socket, release, err := s.tree.Reach(s.address)
	if err != nil {
		return err
	}
	defer release()
	c, err := cri.Dial(ctx, socket)
	if err != nil {
		return err
	}
	return errors.Join(ask(ctx, c), c.Close())
}

func (s *service) Handlers(ctx context.Context) (handlers map[string]cri.Handler, err error) {
	err = s.with(ctx, func(ctx context.Context, c *cri.Client) error {
		conditions, err := c.Conditions(ctx)
		if err != nil {
			return err
		}
		for _, condition := range conditions {
			if condition.Type == "RuntimeReady" && !condition.Status {
				return errors.New("the runtime is not ready: " + condition.Message)
			}
		}
		handlers, err = c.Handlers(ctx)
		return err
	})
	return handlers, err
}

func (s *service) Pods(ctx context.Context) (pods []cri.Pod, err error) {
	err = s.with(ctx, func(ctx context.Context, c *cri.Client) error {
		pods, err = c.Pods(ctx)
		return err
	})
	return pods, err
}

func (s *service) Restartable() error {
	if s.unit == nil {
		return errors.New("containerd is no unit of this node's systemd, so it cannot be restarted from here; say --no-restart, and restart it yourself")
	}
	return s.unit.CheckKillMode()
}

func (s *service) Restart(ctx context.Context) error { return s.unit.Restart(ctx) }
