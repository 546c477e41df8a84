// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// PID returns the process that listens on the socket (unix(7), SO_PEERCRED), as our pid namespace numbers it. One that is not visible
// there is an error.
func (c *Client) PID(ctx context.Context) (int, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	switch {
	case peerErr != nil:
		return 0, fmt.Errorf("who listens: %w", peerErr)
	case peer.Pid == 0:
		return 0, errors.New("who listens is not in this pid namespace")
	}
	return int(peer.Pid), nil
}
