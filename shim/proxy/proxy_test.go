// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The same calls give the same answers without a proxy, through one, and through a handler that changes nothing.
func TestTransparent(t *testing.T) {
	u := newUpstream(t)
	all := intercept(forward, "Echo", "Fail", "Context", "Nothing")
	_, passed, _ := through(t, Config{Dial: DialUnix(u.path)})
	_, handled, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: all})
	clients := map[string]*ttrpc.Client{"passed": passed, "handled": handled}
	direct := dial(t, u.path)
	md := ttrpc.WithMetadata(within(t), ttrpc.MD{"key": {"value"}})
	minute, cancel := context.WithTimeout(ttrpc.WithMetadata(t.Context(), ttrpc.MD{"key": {"v", "w"}}), time.Minute)
	defer cancel()
	for name, c := range map[string]struct {
		ctx          context.Context
		method, text string
	}{
		"echo":            {within(t), "Echo", "hello"},
		"empty":           {within(t), "Echo", ""},
		"no deadline":     {t.Context(), "Context", "key"},
		"metadata":        {md, "Context", "key"},
		"deadline":        {minute, "Context", "key"},
		"error":           {within(t), "Fail", ""},
		"unknown method":  {within(t), "Nothing", ""},
		"big":             {within(t), "Echo", strings.Repeat("x", 4<<20-64)},
		"too big to send": {within(t), "Echo", strings.Repeat("x", 4<<20)},
	} {
		want, wantErr := call(c.ctx, direct, c.method, c.text)
		for how, client := range clients {
			t.Run(name+"/"+how, func(t *testing.T) {
				got, err := call(c.ctx, client, c.method, c.text)
				if got != want {
					t.Errorf("%d bytes %.40q, want %d bytes %.40q", len(got), got, len(want), want)
				}
				if !proto.Equal(status.Convert(err).Proto(), status.Convert(wantErr).Proto()) {
					t.Errorf("error %v, want %v", status.Convert(err).Proto(), status.Convert(wantErr).Proto())
				}
			})
		}
	}
}

func TestStreaming(t *testing.T) {
	u := newUpstream(t)
	_, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, "Echo")})
	s, err := c.NewStream(within(t), &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, testService, "Double", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		want := strings.Repeat(fmt.Sprint(i), 30000)
		if err := s.SendMsg(wrapperspb.String(want)); err != nil {
			t.Fatal(err)
		}
		// A handled call on the same connection takes a stream id that the upstream never sees.
		if got, err := call(within(t), c, "Echo", "between"); err != nil || got != "between" {
			t.Fatalf("%q, %v", got, err)
		}
		for range 2 {
			var got wrapperspb.StringValue
			if err := s.RecvMsg(&got); err != nil || got.Value != want {
				t.Fatalf("message %d: %d bytes, %v", i, len(got.Value), err)
			}
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: %v", err)
	}
}

// A call that waits, handled or passed, holds up no other on its connection.
func TestNothingIsStuck(t *testing.T) {
	u := newUpstream(t)
	for _, methods := range [][]string{{}, {"Block"}, {"Echo"}, {"Block", "Echo"}} {
		t.Run(strings.Join(methods, "+"), func(t *testing.T) {
			_, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, methods...)})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { _, _ = call(ctx, c, "Block", "") })
			}
			for i := range 50 {
				wg.Go(func() {
					if got, err := call(within(t), c, "Echo", fmt.Sprint(i)); err != nil || got != fmt.Sprint(i) {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
			if _, err := call(within(t), c, "Echo", "after"); err != nil {
				t.Error(err)
			}
			cancel()
			wg.Wait()
		})
	}
}

// What a handler may do: change the payload, answer alone, fail in its own way.
func TestHandler(t *testing.T) {
	u := newUpstream(t)
	text := func(s string) []byte { b, _ := proto.Marshal(wrapperspb.String(s)); return b }
	handlers := map[string]Handler{
		"Echo":  func(ctx context.Context, _ *Call, next Next) ([]byte, error) { return next(ctx, text("changed")) },
		"Alone": func(context.Context, *Call, Next) ([]byte, error) { return text("alone"), nil },
		"Busy": func(context.Context, *Call, Next) ([]byte, error) {
			return nil, fmt.Errorf("task x: %w", errdefs.ErrFailedPrecondition)
		},
		"Joined": func(context.Context, *Call, Next) ([]byte, error) {
			return nil, fmt.Errorf("task x: %w: %w", errdefs.ErrFailedPrecondition, fmt.Errorf("%w: by whom", errors.New("not allowed")))
		},
		"Huge":  func(context.Context, *Call, Next) ([]byte, error) { return make([]byte, maxFrame), nil },
		"Bytes": func(context.Context, *Call, Next) ([]byte, error) { return nil, errors.New("stat /\xff: no such file") },
	}
	_, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: func(c *Call) Handler { return handlers[c.Method] }})
	for method, want := range map[string]string{"Echo": "changed", "Alone": "alone"} {
		if got, err := call(within(t), c, method, "x"); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", method, got, err, want)
		}
	}
	if _, err := call(within(t), c, "Busy", ""); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) ||
		status.Convert(err).Message() != "task x: failed precondition" {
		t.Errorf("an error of errdefs came as %v", err)
	}
	// What containerd makes of it stands in a pod's events.
	if _, err := call(within(t), c, "Joined", ""); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) ||
		errgrpc.ToNative(err).Error() != "task x: failed precondition: not allowed: by whom" {
		t.Errorf("an error that wraps two came as %v", errgrpc.ToNative(err))
	}
	if _, err := call(within(t), c, "Huge", ""); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an answer that does not fit a frame: %v", err)
	}
	// A guest words errors, with bytes of its choice; an answer that cannot be encoded would never come.
	if _, err := call(within(t), c, "Bytes", ""); status.Convert(err).Message() != "stat /\ufffd: no such file" {
		t.Errorf("an error that is not UTF-8 came as %v", err)
	}
}

func TestRename(t *testing.T) {
	u := newUpstream(t)
	cfg := Config{Dial: DialUnix(u.path), Rename: map[string]string{"old.Service": testService}}
	for name, icpt := range map[string]func(*Call) Handler{"passed": nil, "handled": func(*Call) Handler { return forward }} {
		t.Run(name, func(t *testing.T) {
			cfg.Intercept = icpt
			_, c, _ := through(t, cfg)
			var out wrapperspb.StringValue
			if err := c.Call(within(t), "old.Service", "Echo", wrapperspb.String("x"), &out); err != nil || out.Value != "x" {
				t.Errorf("%q, %v", out.Value, err)
			}
		})
	}
}

// A client that goes takes its calls along, on both paths, as it does without a proxy.
func TestClientGone(t *testing.T) {
	for _, methods := range [][]string{{}, {"Block"}} {
		t.Run(fmt.Sprint(methods), func(t *testing.T) {
			u := newUpstream(t)
			s, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, methods...)})
			go func() { _, _ = call(within(t), c, "Block", "") }()
			waitFor(t, func() bool { return u.blocked.Load() == 1 })
			c.Close()
			select {
			case <-u.ended: //nolint:errcheck // only its end matters here
			case <-time.After(time.Minute):
				t.Error("the upstream's call goes on")
			}
			if err := s.Wait(within(t)); err != nil {
				t.Errorf("the connection is still served: %v", err)
			}
		})
	}
}

// An upstream that dies gives the client what it would see of it: a connection that ends.
func TestUpstreamGone(t *testing.T) {
	for _, methods := range [][]string{{}, {"Block"}} {
		t.Run(fmt.Sprint(methods), func(t *testing.T) {
			u := newUpstream(t)
			_, c, path := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, methods...)})
			result := make(chan error, 1)
			go func() { _, err := call(within(t), c, "Block", ""); result <- err }()
			waitFor(t, func() bool { return u.blocked.Load() == 1 })
			u.server.Close() // closes idle connections alone; a dead process closes all
			close(u.release)
			<-result //nolint:errcheck // only its end matters here
			c2 := dial(t, path)
			if _, err := call(within(t), c2, "Block", ""); !errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("a call without an upstream: %v, want %v", err, ttrpc.ErrClosed)
			}
		})
	}
}

// The upstream closes the paired connection while a handled call's answer is on its way: it still arrives.
func TestAnswerBeforeEnd(t *testing.T) {
	u := newUpstream(t)
	var s *Server
	draining := func() (found bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.callMu.Lock()
			found = found || c.draining
			c.callMu.Unlock()
		}
		return found
	}
	slow := func(ctx context.Context, c *Call, next Next) ([]byte, error) {
		out, err := next(ctx, c.Payload)
		u.server.Close()
		for !draining() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return out, err
	}
	s, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: func(c *Call) Handler {
		if c.Method == "Echo" && strings.Contains(string(c.Payload), "last") {
			return slow
		}
		return nil
	}})
	if _, err := call(within(t), c, "Echo", "first"); err != nil { // makes the paired connection
		t.Fatal(err)
	}
	if got, err := call(within(t), c, "Echo", "last"); err != nil || got != "last" {
		t.Errorf("%q, %v", got, err)
	}
}

// A slow reader blocks itself alone.
func TestSlowReader(t *testing.T) {
	u := newUpstream(t)
	_, _, path := through(t, Config{Dial: DialUnix(u.path)})
	slow, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	payload, _ := proto.Marshal(wrapperspb.String(strings.Repeat("x", 1<<20)))
	body, _ := proto.Marshal(&ttrpc.Request{Service: testService, Method: "Echo", Payload: payload})
	if err := slow.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // until everything is full
		if _, err := slow.Write(appendFrame(nil, uint32(2*i+1), frameRequest, 0, body)); err != nil {
			break
		}
	}
	if got, err := call(within(t), dial(t, path), "Echo", "quick"); err != nil || got != "quick" {
		t.Errorf("%q, %v", got, err)
	}
}
