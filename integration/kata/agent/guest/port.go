// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a virtio-serial port as a listener that has one connection at a time: a new one begins when the one before has been
// closed and the host opens its end.
type Port struct {
	device string
	free   chan struct{} // has a value when there is no connection
	closed chan struct{}
	once   sync.Once
}

// How long a port may take to appear: the kernel and the device agree on ports after the driver has been loaded.
const portTimeout = 10 * time.Second

// FindPort finds the port that the host has given a name, and waits for it if it must.
func FindPort(name string) (*Port, error) {
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		p, err := findPort("/sys/class/virtio-ports", "/dev", name)
		if err == nil || time.Since(begin) > portTimeout {
			return p, err
		}
	}
}

func findPort(class, dev, name string) (*Port, error) {
	files, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(text)) != name {
			continue
		}
		p := &Port{
			device: filepath.Join(dev, filepath.Base(filepath.Dir(f))),
			free:   make(chan struct{}, 1),
			closed: make(chan struct{}),
		}
		p.free <- struct{}{}
		return p, nil
	}
	return nil, fmt.Errorf("there is no virtio port named %q", name)
}

// Accept waits until the port is free and the host has its end open.
func (p *Port) Accept() (net.Conn, error) {
	select {
	case <-p.free:
	case <-p.closed:
		return nil, net.ErrClosed
	}
	fd, err := unix.Open(p.device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the port: %w", err)
	}
	// Longer and longer, because under emulation looking is dear: a guest that nobody wants any more should cost little.
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		// While the host has not opened its end, the port says POLLHUP at once, whatever one asks for.
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(poll, 100); err != nil && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("poll the port: %w", err)
		}
		if poll[0].Revents&unix.POLLHUP == 0 {
			return &portConn{File: os.NewFile(uintptr(fd), p.device), port: p}, nil
		}
		select {
		case <-p.closed:
			_ = unix.Close(fd)
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
	}
}

// Close ends every Accept.
func (p *Port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr is the device.
func (p *Port) Addr() net.Addr { return &net.UnixAddr{Name: p.device} }

// portConn is a port between two hang-ups of the host; a read then ends with EOF.
type portConn struct {
	*os.File
	port *Port
	once sync.Once
}

// Close closes the device and frees the port.
func (c *portConn) Close() error {
	err := c.File.Close()
	c.once.Do(func() { c.port.free <- struct{}{} })
	return err
}

// LocalAddr is the device.
func (c *portConn) LocalAddr() net.Addr { return c.port.Addr() }

// RemoteAddr is the device too: there is one host.
func (c *portConn) RemoteAddr() net.Addr { return c.port.Addr() }
