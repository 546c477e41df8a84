// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// conn is one client connection and its pair.
type conn struct {
	srv    *Server
	client net.Conn
	ctx    context.Context // ends when the client is gone
	cancel context.CancelFunc

	callMu   sync.Mutex
	inFlight int           // calls being handled
	draining bool          // no further calls are taken
	answered chan struct{} // closed when draining and inFlight is zero

	writeMu  sync.Mutex // one frame at a time to the client
	upstream net.Conn   // nil until the first frame passes; used by run alone
	back     sync.WaitGroup
}

// run copies the client's frames until one of the two sides is gone.
func (c *conn) run() {
	err := c.fromClient()
	if errors.Is(err, errUpstream) {
		// The client is still there: let calls that are on their way answer before it sees the end.
		c.drain()
	}
	c.cancel()
	c.client.Close()
	if c.upstream != nil {
		c.upstream.Close()
	}
	c.back.Wait()
}

// errUpstream says that it was the upstream that failed, not the client.
var errUpstream = errors.New("upstream connection")

func (c *conn) fromClient() error {
	frames := frameReader{r: bufio.NewReader(c.client)}
	for {
		h, frame, err := frames.next()
		if errors.Is(err, errOversized) {
			// Never passed on: an upstream with a larger limit would see a call that we have not.
			if err := frames.discard(h); err != nil {
				return err
			}
			if err := c.reply(h.stream, nil, oversized(int(h.length)).Err()); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if h.kind == frameRequest {
			if frame = c.request(h, frame); frame == nil {
				continue
			}
		}
		if err := c.pass(frame); err != nil {
			return fmt.Errorf("%w: %w", errUpstream, err)
		}
	}
}

// request returns the frame to pass on, or nil when the request is answered here.
func (c *conn) request(h header, frame []byte) []byte {
	req := &ttrpc.Request{}
	if err := proto.Unmarshal(frame[headerLen:], req); err != nil {
		// ttrpc's own answer. Not passed on: a more lenient upstream might find in it a call that we have not.
		c.answer(h.stream, nil, status.Errorf(codes.InvalidArgument, "unmarshal request error: %v", err))
		return nil
	}
	if c.srv.cfg.Intercept != nil {
		call := &Call{Service: req.Service, Method: req.Method, Payload: req.Payload, request: req}
		if len(req.Metadata) > 0 {
			call.Metadata = ttrpc.MD{}
			for _, kv := range req.Metadata {
				call.Metadata[kv.Key] = append(call.Metadata[kv.Key], kv.Value)
			}
		}
		if handler := c.srv.cfg.Intercept(call); handler != nil {
			if c.begin() {
				go c.handle(h.stream, call, handler)
			}
			return nil
		}
	}
	if name, ok := c.srv.cfg.Rename[req.Service]; ok {
		req.Service = name
		body, err := proto.Marshal(req)
		if err != nil || len(body) > maxFrame {
			c.answer(h.stream, nil, oversized(len(body)).Err())
			return nil
		}
		return appendFrame(nil, h.stream, h.kind, h.flags, body)
	}
	return frame
}

// pass writes a frame to the upstream, which it connects first if need be.
func (c *conn) pass(frame []byte) error {
	if c.upstream == nil {
		up, err := c.srv.cfg.Dial(c.ctx)
		if err != nil {
			return err
		}
		c.upstream = up
		c.back.Go(func() { c.fromUpstream(up) })
	}
	_, err := c.upstream.Write(frame)
	return err
}

// fromUpstream copies the upstream's frames to the client, and ends the connection when there are no more.
func (c *conn) fromUpstream(up net.Conn) {
	frames := frameReader{r: bufio.NewReader(up)}
	for {
		h, frame, err := frames.next()
		switch {
		case errors.Is(err, errOversized):
			// The client's ttrpc turns it into an error of that stream; it goes through in pieces.
			err = c.stream(h, frames.r)
		case err == nil:
			err = c.write(frame)
		}
		if err != nil {
			c.drain()
			return
		}
	}
}

func (c *conn) write(frame []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	_, err := c.client.Write(frame)
	return err
}

func (c *conn) stream(h header, body io.Reader) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	var head [headerLen]byte
	h.put(head[:])
	if _, err := c.client.Write(head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(c.client, body, int64(h.length))
	return err
}

// begin counts a call in; false when the connection is on its way out.
func (c *conn) begin() bool {
	c.callMu.Lock()
	defer c.callMu.Unlock()
	if c.draining {
		return false
	}
	c.inFlight++
	return true
}

func (c *conn) end() {
	c.callMu.Lock()
	defer c.callMu.Unlock()
	if c.inFlight--; c.inFlight == 0 && c.draining {
		close(c.answered)
	}
}

// drain closes the client's connection once the calls being handled have answered, or drainGrace is over.
func (c *conn) drain() {
	c.callMu.Lock()
	if !c.draining {
		c.draining = true
		if c.inFlight == 0 {
			close(c.answered)
		}
	}
	c.callMu.Unlock()
	timer := time.NewTimer(drainGrace)
	defer timer.Stop()
	select {
	case <-c.answered:
	case <-timer.C:
	case <-c.ctx.Done():
	}
	c.cancel()
	c.client.Close()
}

func (c *conn) handle(stream uint32, call *Call, handler Handler) {
	defer c.end()
	ctx, cancel := c.ctx, context.CancelFunc(func() {})
	if call.Metadata != nil {
		ctx = ttrpc.WithMetadata(ctx, call.Metadata)
	}
	if n := call.request.TimeoutNano; n != 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(n))
	}
	defer cancel()
	payload, err := handler(ctx, call, func(ctx context.Context, payload []byte) ([]byte, error) {
		req := &ttrpc.Request{Service: call.Service, Method: call.Method, Metadata: call.request.Metadata, Payload: payload}
		if name, ok := c.srv.cfg.Rename[req.Service]; ok {
			req.Service = name
		}
		req.ProtoReflect().SetUnknown(call.request.ProtoReflect().GetUnknown())
		return Exchange(ctx, c.srv.cfg.Dial, req)
	})
	if errors.Is(err, ttrpc.ErrClosed) {
		go c.drain() // which waits for this call too
		return
	}
	c.answer(stream, payload, err)
}

// answer is reply for those who cannot do anything about a client that is gone; run notices by itself.
func (c *conn) answer(stream uint32, payload []byte, err error) {
	if err := c.reply(stream, payload, err); err != nil && c.ctx.Err() == nil {
		log.L.WithError(err).Debug("a response could not be written")
	}
}

func (c *conn) reply(stream uint32, payload []byte, err error) error {
	resp := &ttrpc.Response{Payload: payload}
	if err != nil {
		resp = &ttrpc.Response{Status: toStatus(err).Proto()}
		// Some errors have bytes of a guest's or a workload's; what is not UTF-8 cannot be encoded.
		resp.Status.Message = strings.ToValidUTF8(resp.Status.Message, "\ufffd")
	}
	body, err := proto.Marshal(resp)
	if err != nil {
		return fmt.Errorf("encode a response: %w", err)
	}
	if len(body) > maxFrame {
		if body, err = proto.Marshal(&ttrpc.Response{Status: oversized(len(body)).Proto()}); err != nil {
			return fmt.Errorf("encode a response: %w", err)
		}
	}
	return c.write(appendFrame(nil, stream, frameResponse, 0, body))
}

// toStatus is the error as it is sent. Of an error of ours the text says all; errgrpc adds what else it wraps as details, which containerd
// would append to the text, a line each.
func toStatus(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	st := status.Convert(errgrpc.ToGRPC(err))
	return status.New(st.Code(), st.Message())
}
