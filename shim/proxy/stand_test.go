// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const testService = "test.Service"

// upstream is a ttrpc server with the methods that the tests need.
type upstream struct {
	server  *ttrpc.Server
	release chan struct{} // ends Block
	path    string
	blocked atomic.Int32 // Blocks that have come
	ended   chan error   // what a Block's context said at its end
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{release: make(chan struct{}), path: filepath.Join(t.TempDir(), "up"), ended: make(chan error, 16)}
	var err error
	if u.server, err = ttrpc.NewServer(); err != nil {
		t.Fatal(err)
	}
	text := func(f func(context.Context, string) (string, error)) ttrpc.Method {
		return func(ctx context.Context, unmarshal func(any) error) (any, error) {
			var in wrapperspb.StringValue
			if err := unmarshal(&in); err != nil {
				return nil, err
			}
			out, err := f(ctx, in.Value)
			return wrapperspb.String(out), err
		}
	}
	u.server.RegisterService(testService, &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Echo": text(func(_ context.Context, s string) (string, error) { return s, nil }),
			"Fail": text(func(context.Context, string) (string, error) {
				st, err := status.New(codes.NotFound, "no such thing").WithDetails(&errdetails.ErrorInfo{Reason: "R"})
				return "", errors.Join(st.Err(), err)
			}),
			"Block": text(func(ctx context.Context, s string) (string, error) {
				u.blocked.Add(1)
				select {
				case <-u.release:
					return s, nil
				case <-ctx.Done():
					u.ended <- ctx.Err()
					return "", ctx.Err()
				}
			}),
			"Context": text(func(ctx context.Context, key string) (string, error) {
				v, _ := ttrpc.GetMetadataValue(ctx, key)
				d, ok := ctx.Deadline()
				return fmt.Sprintf("%s %v %v", v, ok, ok && time.Until(d) > 0 && time.Until(d) <= time.Minute), nil
			}),
		},
		Streams: map[string]ttrpc.Stream{"Double": {
			StreamingClient: true, StreamingServer: true,
			Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
				for {
					var in wrapperspb.StringValue
					if err := s.RecvMsg(&in); errors.Is(err, io.EOF) {
						return nil, nil
					} else if err != nil {
						return nil, err
					}
					for range 2 {
						if err := s.SendMsg(&in); err != nil {
							return nil, err
						}
					}
				}
			},
		}},
	})
	l, err := net.Listen("unix", u.path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = u.server.Serve(context.Background(), l) }()
	t.Cleanup(func() { u.server.Close() })
	return u
}

// through serves a proxy before u and returns a client of it.
func through(t *testing.T, cfg Config) (*Server, *ttrpc.Client, string) {
	t.Helper()
	s := New(cfg)
	path := filepath.Join(t.TempDir(), "p")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, dial(t, path), path
}

func dial(t *testing.T, path string) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

func call(ctx context.Context, c *ttrpc.Client, method, text string) (string, error) {
	var out wrapperspb.StringValue
	err := c.Call(ctx, testService, method, wrapperspb.String(text), &out)
	return out.Value, err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// intercept handles the methods named.
func intercept(h Handler, methods ...string) func(*Call) Handler {
	return func(c *Call) Handler {
		for _, m := range methods {
			if c.Service == testService && c.Method == m {
				return h
			}
		}
		return nil
	}
}

func forward(ctx context.Context, c *Call, next Next) ([]byte, error) { return next(ctx, c.Payload) }

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute")
		}
	}
}
