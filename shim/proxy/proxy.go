// SPDX-License-Identifier: Apache-2.0

// Package proxy stands between a ttrpc client and a ttrpc server and copies frames, so that services, methods and
// fields that it does not know pass byte for byte. Requests that the owner picks out are handed to a handler instead,
// which may change the payload, call on, or answer by itself.
//
// Each client connection is paired with one connection to the upstream, made when the first frame passes, so that
// closing, cancelling and back-pressure are between the two as they would be without us. A handler calls on over a
// connection of its own; it can neither hold up the streams that pass nor be held up by them.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// drainGrace is how long calls that are being handled may take to answer once the upstream has closed the paired
// connection: an upstream that exits on a call closes it while the call's answer is still on its way through us.
const drainGrace = time.Second

// Dialer makes a connection to the upstream.
type Dialer func(ctx context.Context) (net.Conn, error)

// Call is a request that the owner may handle. It is valid for as long as the handler runs.
type Call struct {
	Service  string
	Method   string
	Payload  []byte   // the request message, as it came
	Metadata ttrpc.MD // nil when the caller sent none

	request *ttrpc.Request
}

// Request returns the whole request as it came. It must not be changed.
func (c *Call) Request() *ttrpc.Request { return c.request }

// Timeout returns what the caller gave the call; zero is no limit.
func (c *Call) Timeout() time.Duration { return time.Duration(c.request.TimeoutNano) }

// Next sends the call to the upstream with this payload, with the caller's metadata and what is left until ctx's
// deadline, and returns the response's payload. The upstream's own error comes back as a gRPC status error with its
// details; return it as it is. An upstream that is gone gives an error that wraps ttrpc.ErrClosed.
type Next func(ctx context.Context, payload []byte) ([]byte, error)

// Handler answers a call with a response payload or an error. It runs in a goroutine of its own. ctx carries the
// caller's metadata and deadline, and ends when the caller is gone. Errors are mapped to a gRPC status here, once: a
// status error as it is, others by their errdefs class. An error that wraps ttrpc.ErrClosed closes the caller's
// connection, which is what the caller would have seen of an upstream that died.
type Handler func(ctx context.Context, call *Call, next Next) ([]byte, error)

// Config says where frames go and which calls are taken out.
type Config struct {
	// Dial connects to the upstream.
	Dial Dialer
	// Intercept returns the handler of a call, or nil to pass it on as it is. It is called for every request, in the
	// order in which they come on a connection; while it blocks, nothing more is read from that connection. nil: none.
	Intercept func(*Call) Handler
	// Rename maps service names to the names by which the upstream knows them. A request that passes under a new
	// name is encoded anew; its payload is not.
	Rename map[string]string
}

// Server proxies connections. Its methods are safe for concurrent use.
type Server struct {
	cfg Config

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	idle      sync.WaitGroup // one for each connection
}

// New makes a server.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}}
}

// Serve accepts connections of processes of our own user until the listener closes, and then returns nil if Close
// closed it. It does not wait for the connections.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	backoff := time.Millisecond
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.isClosed() {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept: %w", err)
			}
			// Out of descriptors or memory: the pod's calls are worth waiting for.
			log.L.WithError(err).Error("accept failed; trying again")
			time.Sleep(backoff)
			backoff = min(2*backoff, time.Second)
			continue
		}
		backoff = time.Millisecond
		if err := sameUser(nc); err != nil {
			log.L.WithError(err).Error("connection refused")
			nc.Close()
			continue
		}
		s.start(nc)
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) start(nc net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{srv: s, client: nc, ctx: ctx, cancel: cancel, answered: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		cancel()
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.idle.Add(1)
	go func() {
		defer s.idle.Done()
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// Stop closes the listeners and leaves the connections as they are.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	clear(s.listeners)
}

// Wait returns when no connection is left, or when ctx ends.
func (s *Server) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.idle.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes the listeners and every connection. Calls that are being handled may still answer within a second;
// Close returns when they have, or when that second is over.
func (s *Server) Close() {
	s.Stop()
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(c.drain)
	}
	wg.Wait()
}

// sameUser refuses a peer of another user, as ttrpc.UnixSocketRequireSameUser does; the socket's mode already does.
func sameUser(nc net.Conn) error {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("peer of a %T: only unix sockets are served", nc)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("peer credentials: %w", credErr)
	}
	if int(cred.Uid) != os.Geteuid() || int(cred.Gid) != os.Getegid() {
		return fmt.Errorf("peer is uid %d gid %d, not ours: %w", cred.Uid, cred.Gid, unix.EPERM)
	}
	return nil
}
