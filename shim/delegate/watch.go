// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"fmt"
	"io"
	"net"
)

// Wait returns nil when the delegate has ended, or ctx's error. If its process is not known or cannot be watched
// (before Linux 5.10), the end of a connection to it stands for it.
func (i Instance) Wait(ctx context.Context) error {
	if i.Process.PID > 0 {
		if err := i.Process.Wait(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	conn, err := i.Dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn)
	return ctx.Err()
}

// Dial connects to the delegate's Task API.
func (i Instance) Dial(ctx context.Context) (net.Conn, error) {
	path, err := SocketPath(i.Address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to delegate: %w", err)
	}
	return conn, nil
}
