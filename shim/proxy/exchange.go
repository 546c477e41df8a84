// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// DialUnix returns a Dialer for an address of the form "unix:///path" or "/path".
func DialUnix(address string) Dialer {
	path := address
	if len(path) > len("unix://") && path[:len("unix://")] == "unix://" {
		path = path[len("unix://"):]
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// Exchange sends one unary request over a connection of its own and returns the response's payload. A connection
// costs some ten microseconds; in return a call is cancelled by closing it, and nothing is kept between calls.
// ctx's deadline becomes the request's timeout, whatever req says. Errors are: ctx's own; the server's, as a gRPC status error with its
// details; one that wraps ttrpc.ErrClosed when the server is not there or goes away.
func Exchange(ctx context.Context, dial Dialer, req *ttrpc.Request) ([]byte, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, exchangeError(ctx, "connect", err)
	}
	defer conn.Close()
	// An expired deadline ends reads and writes that are under way.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	out := &ttrpc.Request{Service: req.Service, Method: req.Method, Payload: req.Payload, Metadata: req.Metadata}
	out.ProtoReflect().SetUnknown(req.ProtoReflect().GetUnknown()) // of a newer envelope
	if deadline, ok := ctx.Deadline(); ok {
		out.TimeoutNano = max(1, time.Until(deadline).Nanoseconds())
	}
	body, err := proto.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	if err := ttrpc.OversizedMessageError(len(body)); err != nil {
		return nil, oversized(len(body)).Err()
	}
	if _, err := conn.Write(appendFrame(nil, 1, frameRequest, 0, body)); err != nil {
		return nil, exchangeError(ctx, "send", err)
	}
	return readResponse(ctx, conn)
}

func readResponse(ctx context.Context, conn net.Conn) ([]byte, error) {
	frames := frameReader{r: bufio.NewReaderSize(conn, 512)}
	for {
		h, frame, err := frames.next()
		if errors.Is(err, errOversized) {
			return nil, oversized(int(h.length)).Err()
		}
		if err != nil {
			return nil, exchangeError(ctx, "receive", err)
		}
		if h.stream != 1 || h.kind != frameResponse {
			continue
		}
		resp := &ttrpc.Response{}
		if err := proto.Unmarshal(frame[headerLen:], resp); err != nil {
			return nil, fmt.Errorf("decode a response: %w", err)
		}
		if resp.Status != nil && resp.Status.Code != int32(codes.OK) {
			return nil, status.ErrorProto(resp.Status)
		}
		return resp.Payload, nil
	}
}

// exchangeError maps what says that the peer is gone to ttrpc.ErrClosed, as ttrpc's client does.
func exchangeError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, gone := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNREFUSED, syscall.ENOENT, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%s: %w: %w", what, ttrpc.ErrClosed, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Invoke is Exchange for messages. ctx's ttrpc metadata goes with the request.
func Invoke(ctx context.Context, dial Dialer, service, method string, in, out proto.Message) error {
	payload, err := proto.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", service, method, err)
	}
	req := &ttrpc.Request{Service: service, Method: method, Payload: payload}
	if md, ok := ttrpc.GetMetadata(ctx); ok {
		for k, values := range md {
			for _, v := range values {
				req.Metadata = append(req.Metadata, &ttrpc.KeyValue{Key: k, Value: v})
			}
		}
	}
	resp, err := Exchange(ctx, dial, req)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(resp, out); err != nil {
		return fmt.Errorf("decode the answer of %s/%s: %w", service, method, err)
	}
	return nil
}
