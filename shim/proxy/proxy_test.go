// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const testService = "test.Service"

// upstream is a ttrpc server with the methods that the tests need.
type upstream struct {
	server  *ttrpc.Server
	release chan struct{} // ends Block
	path    string
	ended   chan error // what a Block's context said at its end
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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
		"Huge": func(context.Context, *Call, Next) ([]byte, error) { return make([]byte, maxFrame), nil },
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
	if _, err := call(within(t), c, "Huge", ""); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an answer that does not fit a frame: %v", err)
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
			waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 1 })
			time.Sleep(20 * time.Millisecond) // let the call arrive
			c.Close()
			select {
			case <-u.ended:
			case <-time.After(5 * time.Second):
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
			time.Sleep(20 * time.Millisecond)
			u.server.Close() // closes idle connections alone; a dead process closes all
			close(u.release)
			<-result
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
	slow := func(ctx context.Context, c *Call, next Next) ([]byte, error) {
		out, err := next(ctx, c.Payload)
		u.server.Close()
		time.Sleep(100 * time.Millisecond)
		return out, err
	}
	_, c, _ := through(t, Config{Dial: DialUnix(u.path), Intercept: func(c *Call) Handler {
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

// exchangeRaw writes raw frames and returns the first frame that comes back.
func exchangeRaw(t *testing.T, path string, frames ...[]byte) (header, []byte) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	for _, f := range frames {
		if _, err := conn.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	r := frameReader{r: conn}
	h, frame, err := r.next()
	if err != nil {
		t.Fatal(err)
	}
	return h, frame[headerLen:]
}

// Frames that are no proper requests get the answer that ttrpc itself gives.
func TestBadFramesAsTTRPC(t *testing.T) {
	u := newUpstream(t)
	_, _, path := through(t, Config{Dial: DialUnix(u.path), Intercept: intercept(forward, "Echo")})
	request, _ := proto.Marshal(&ttrpc.Request{Service: testService, Method: "Echo"})
	for name, frame := range map[string][]byte{
		"oversized":       append(oversizedHeader(1), make([]byte, maxFrame+1)...),
		"undecodable":     appendFrame(nil, 1, frameRequest, 0, []byte("\xff\xff\xff")),
		"data of nothing": appendFrame(nil, 3, 3, 0, []byte("x")),
		"request":         appendFrame(nil, 1, frameRequest, 0, request),
		"future kind":     append(appendFrame(nil, 1, 9, 7, []byte("?")), appendFrame(nil, 1, frameRequest, 0, request)...),
	} {
		t.Run(name, func(t *testing.T) {
			wantH, want := exchangeRaw(t, u.path, frame)
			gotH, got := exchangeRaw(t, path, frame)
			var a, b ttrpc.Response
			if err := errors.Join(proto.Unmarshal(want, &a), proto.Unmarshal(got, &b)); err != nil {
				t.Fatal(err)
			}
			// A status of zero and none are the same; only the upstream's own path says which.
			if a.Status.GetCode() == 0 && b.Status.GetCode() == 0 {
				a.Status, b.Status = nil, nil
			}
			if gotH.kind != wantH.kind || gotH.stream != wantH.stream || gotH.flags != wantH.flags || !proto.Equal(&a, &b) {
				t.Errorf("answer %+v %v, ttrpc's is %+v %v", gotH, &b, wantH, &a)
			}
		})
	}
}

func oversizedHeader(stream uint32) []byte {
	b := make([]byte, headerLen)
	header{length: maxFrame + 1, stream: stream, kind: frameRequest}.put(b)
	return b
}

// Frames of kinds that we do not know reach the upstream as they are, byte for byte.
func TestVerbatim(t *testing.T) {
	var want []byte
	unknown, _ := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m", Payload: []byte("p")})
	unknown = append(unknown, "\xa2\x06\x03new"...) // field 100: of a newer envelope
	for i, f := range [][]byte{unknown, {}, bytes.Repeat([]byte("z"), 100_000)} {
		kind := []frameKind{frameRequest, 3, 200}[i]
		want = appendFrame(want, uint32(2*i+1), kind, uint8(0xf0+i), f)
	}
	path := filepath.Join(t.TempDir(), "up")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, len(want))
		_, _ = io.ReadFull(conn, buf)
		got <- buf
		_, _ = conn.Write(want) // and back
		_, _ = io.Copy(io.Discard, conn)
	}()
	_, _, proxyPath := through(t, Config{Dial: DialUnix(path), Intercept: intercept(forward, "Echo")})
	conn, err := net.Dial("unix", proxyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(want); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Error("the upstream got other bytes")
	}
	back := make([]byte, len(want))
	if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(back, want) {
		t.Errorf("the client got other bytes (%v)", err)
	}
}

// Fields of the envelope that are newer than us survive a handler.
func TestUnknownEnvelopeFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "up")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := frameReader{r: conn}
		_, frame, _ := r.next()
		got <- bytes.Clone(frame)
	}()
	_, _, proxyPath := through(t, Config{Dial: DialUnix(path), Intercept: func(*Call) Handler { return forward }})
	body, _ := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m"})
	conn, err := net.Dial("unix", proxyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendFrame(nil, 1, frameRequest, 0, append(body, "\xa2\x06\x03new"...))); err != nil {
		t.Fatal(err)
	}
	if frame := <-got; !bytes.Contains(frame, []byte("\xa2\x06\x03new")) {
		t.Errorf("the unknown field is lost: %q", frame)
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
	slow.SetWriteDeadline(time.Now().Add(time.Second))
	for i := range 40 { // until everything is full
		if _, err := slow.Write(appendFrame(nil, uint32(2*i+1), frameRequest, 0, body)); err != nil {
			break
		}
	}
	if got, err := call(within(t), dial(t, path), "Echo", "quick"); err != nil || got != "quick" {
		t.Errorf("%q, %v", got, err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within five seconds")
		}
	}
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, 1, frameRequest, 0, []byte("abc")))
	f.Add(appendFrame(appendFrame(nil, 1, frameRequest, 0, nil), 3, frameResponse, 4, []byte("x")))
	f.Add(append(oversizedHeader(9), "rest"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := frameReader{r: bytes.NewReader(data)}
		var back []byte
		for {
			h, frame, err := r.next()
			if errors.Is(err, errOversized) {
				if h.length <= maxFrame || r.discard(h) == nil && int(h.length) > len(data) {
					t.Fatalf("oversized frame %+v of %d bytes", h, len(data))
				}
				return
			}
			if err != nil {
				break
			}
			if int(h.length) != len(frame)-headerLen || binary.BigEndian.Uint32(frame[4:8]) != h.stream {
				t.Fatalf("header %+v, frame %x", h, frame)
			}
			back = append(back, frame...)
		}
		if !bytes.HasPrefix(data, back) {
			t.Fatalf("read %x from %x", back, data)
		}
	})
}
