// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// consoleSocket receives the master of a pseudo-terminal, which runc makes in the container.
type consoleSocket struct {
	path     string
	listener *net.UnixListener
}

func listenConsole(path string) (*consoleSocket, error) {
	if len(path) > 100 {
		return nil, fmt.Errorf("console socket %s: its name is too long", path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &consoleSocket{path: path, listener: l}, nil
}

func (c *consoleSocket) close() { _ = c.listener.Close() } // removes the file too

// receive takes the master. runc has sent it by the time that it ends.
func (c *consoleSocket) receive() (*os.File, error) {
	if err := c.listener.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	name, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("console socket: no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("console socket: no descriptor"), err)
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
