// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"google.golang.org/protobuf/proto"
)

// Delete runs the delegate's delete action for one container and returns what it printed: a DeleteResponse, as it
// came. It does not touch the delegate's process; see Instance.End.
func Delete(ctx context.Context, binary string, p Params) ([]byte, error) {
	out, err := run(ctx, binary, p, nil, "delete")
	if err != nil {
		return nil, fmt.Errorf("delete by delegate: %w", err)
	}
	return out, nil
}

// End kills the delegate if it is still alive, verified by start time and boot, and removes its sockets. It is what
// is left to do when our own shim died: the delegate has lost the only way to it. What the delegate has begun it may
// finish, within a second and a half.
func (i Instance) End(ctx context.Context) error {
	i.settle(ctx)
	err := i.Process.Kill(ctx)
	if err != nil {
		err = fmt.Errorf("end delegate: %w", err)
	}
	paths := i.Sockets
	if path, perr := SocketPath(i.Address); perr == nil {
		paths = append(paths, path)
	}
	for _, path := range paths {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the delegate's socket: %w", rerr))
		}
	}
	return err
}

// Info runs the delegate with -info and returns what it printed: a RuntimeInfo, as it came. -info is the only
// argument, which is how Kata's shim wants it.
func Info(ctx context.Context, cfg Config) ([]byte, error) {
	binary, err := cfg.Find()
	if err != nil {
		return nil, err
	}
	opts, err := cfg.Options()
	if err != nil {
		return nil, err
	}
	var stdin []byte
	if opts != nil {
		if stdin, err = proto.Marshal(opts); err != nil {
			return nil, fmt.Errorf("encode the delegate's options: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, binary, "-info")
	cmd.WaitDelay = pipeDelay
	out, err := output(cmd, stdin)
	if err != nil {
		return nil, fmt.Errorf("ask delegate: %w", err)
	}
	return out, nil
}
