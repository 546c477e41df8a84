// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pipes are the FIFOs that the delegate copies the resident's stdin, stdout and stderr from and to. Delegates want all
// three or none.
type pipes struct {
	stdin, stdout, stderr string        // paths
	timeout               time.Duration // of a write to stdin

	made       []string // paths
	complaints *complaints

	mu       sync.Mutex
	in       *os.File  // guarded by mu, as all below; open for reading too, so that the delegate never sees its end
	out      *os.File  // nil until the delegate has opened its side
	waker    *os.File  // of stdout, for writing: frees who waits for the delegate to open it
	deadline time.Time // for reads of out
}

// create makes the FIFOs and opens stdin.
func (p *pipes) create() error {
	for _, path := range []string{p.stdin, p.stdout, p.stderr} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("make FIFO %s: %w", path, err)
		}
		p.made = append(p.made, path)
	}
	in, err := os.OpenFile(p.stdin, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if p.complaints, err = listen(p.stderr); err != nil {
		return errors.Join(err, in.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in = in
	return nil
}

// openOutput blocks until the delegate has opened its end of stdout, so that an end of file is the delegate's doing, or
// until finish is called.
func (p *pipes) openOutput() (*os.File, error) {
	out, err := os.OpenFile(p.stdout, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = out
	if !p.deadline.IsZero() {
		out.SetReadDeadline(p.deadline)
	}
	return out, nil
}

// hangUp closes stdin: who reads it sees its end, if the delegate passes that on.
func (p *pipes) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in != nil {
		p.in.Close()
	}
}

// finish ends reads of stdout after d, if they do not end sooner.
func (p *pipes) finish(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deadline := time.Now().Add(d)
	if p.in == nil || !p.deadline.IsZero() && p.deadline.Before(deadline) {
		return
	}
	p.deadline = deadline
	if p.out != nil {
		p.out.SetReadDeadline(p.deadline)
		return
	}
	if p.waker == nil {
		// Kept open: whoever opens stdout for reading after us must not wait either.
		p.waker, _ = os.OpenFile(p.stdout, os.O_RDWR|unix.O_NONBLOCK, 0)
	}
}

// Write is one write to stdin. It fails if the resident does not read for too long.
func (p *pipes) Write(b []byte) (int, error) {
	if err := p.in.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.in.Write(b)
}

// remove closes and removes what is left. container is for the log.
func (p *pipes) remove(container string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.complaints != nil {
		p.complaints.close(container)
	}
	for _, f := range []*os.File{p.in, p.out, p.waker} {
		if f != nil {
			f.Close()
		}
	}
	var errs []error
	for _, path := range p.made {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
