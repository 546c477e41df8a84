// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands between the shipper and a server, and can part them. All methods are safe for concurrent use.
type proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	changed *sync.Cond // on mu
	// What is held back, until it goes on or the connection ends; guarded by mu.
	requests, answers bool
	open              map[*net.TCPConn]bool
}

// newProxy makes a proxy for the server at target, which need not be there yet.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, open: map[*net.TCPConn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	go p.accept()
	t.Cleanup(func() {
		_ = l.Close()
		p.reset()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close() // as if nobody listened
			continue
		}
		one, other := client.(*net.TCPConn), server.(*net.TCPConn)
		p.mu.Lock()
		p.open[one], p.open[other] = true, true
		p.mu.Unlock()
		go p.forward(one, other, &p.requests)
		go p.forward(other, one, &p.answers)
	}
}

// forward moves bytes while *held is false.
func (p *proxy) forward(from, to *net.TCPConn, held *bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		for *held && p.open[to] {
			p.changed.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = to.CloseWrite() // the other direction goes on
				return
			}
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(from)
	p.end(to)
}

// end ends a connection with a reset. mu must be held.
func (p *proxy) end(c *net.TCPConn) {
	_ = c.SetLinger(0) // it may have ended
	_ = c.Close()
	delete(p.open, c)
	p.changed.Broadcast()
}

// hold keeps requests, or answers, or both from getting through, as a network does that is parted: nobody is told.
func (p *proxy) hold(requests, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.answers = requests, answers
	p.changed.Broadcast()
}

// reset ends all connections. What was held back is gone.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		p.end(c)
	}
}
