// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrEOF is the end of a process's output. Kata's agents up to 3.x fail with it, and the Go shim takes any error for the
// end; an empty answer without an error, which the agent of 4.1 gives, would make a 3.x shim ask again and again.
var ErrEOF = errors.New("read meet eof")

// ReadStdout reads at most length bytes of a process's output, or of its terminal. It blocks until there is some, and fails
// with [ErrEOF] when there will be none: when all who had it open have closed it, or half a second after the process's end.
func (s *Sandbox) ReadStdout(id, exec string, length uint32) ([]byte, error) {
	_, p, err := s.process(id, exec)
	if err != nil {
		return nil, err
	}
	return p.read(p.stdout, length)
}

// ReadStderr is as [Sandbox.ReadStdout]; with a terminal both read that.
func (s *Sandbox) ReadStderr(id, exec string, length uint32) ([]byte, error) {
	_, p, err := s.process(id, exec)
	if err != nil {
		return nil, err
	}
	return p.read(p.stderr, length)
}

func (p *process) read(f *os.File, length uint32) ([]byte, error) {
	if p.terminal != nil {
		f = p.terminal
	}
	if f == nil {
		return nil, errors.New("cannot get stream reader")
	}
	buffer := make([]byte, min(length, 1<<20)) // the answer must fit into a message
	for {
		ended := false
		select {
		case <-p.exited:
			ended = true
			// Each reader gets the time anew, so that what is there is read however slowly it is fetched.
			_ = f.SetReadDeadline(time.Now().Add(drain))
		default:
		}
		n, err := f.Read(buffer)
		switch {
		case n > 0:
			return buffer[:n], nil
		case errors.Is(err, os.ErrDeadlineExceeded) && !ended:
			// The process ended between the look and the read.
		default:
			return nil, ErrEOF // a terminal's end is EIO
		}
	}
}

// WriteStdin writes to a process's input or terminal, and blocks while that is full. No data at all closes it (AG/rpc.rs
// do_write_stream).
func (s *Sandbox) WriteStdin(id, exec string, data []byte) error {
	_, p, err := s.process(id, exec)
	if err != nil {
		return err
	}
	if len(data) == 0 {
		p.endInput()
		return nil
	}
	f := p.terminal
	if f == nil {
		p.mu.Lock()
		f = p.stdin
		p.mu.Unlock()
	}
	if f == nil {
		return errors.New("cannot get writer")
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write stdin: %w", err)
	}
	return nil
}

// CloseStdin closes a process's input (AG/rpc.rs close_stdin).
func (s *Sandbox) CloseStdin(id, exec string) error {
	_, p, err := s.process(id, exec)
	if err != nil {
		return err
	}
	p.endInput()
	return nil
}

// endInput closes the input; with a terminal it closes that, for output too (RJ/process.rs close_stdin).
func (p *process) endInput() {
	p.closeStdin()
	if p.terminal != nil {
		_ = p.terminal.Close()
	}
}

// Resize sets the size of a process's terminal.
func (s *Sandbox) Resize(id, exec string, rows, columns uint32) error {
	_, p, err := s.process(id, exec)
	if err != nil {
		return err
	}
	if p.terminal == nil {
		return ErrNoTerminal
	}
	raw, err := p.terminal.SyscallConn()
	if err != nil {
		return fmt.Errorf("ioctl error: %w", err)
	}
	size := &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}
	var resize error
	if err := raw.Control(func(fd uintptr) { resize = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); err != nil {
		resize = err
	}
	if resize != nil {
		return fmt.Errorf("ioctl error: %w", resize)
	}
	return nil
}
