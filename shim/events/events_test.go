// SPDX-License-Identifier: Apache-2.0

package events

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"metsuke.dev/metsuke/shim/proxy"
)

// containerd is the receiving side; it can be away.
type containerd struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	payloads [][]byte
	refuse   error
	stall    chan struct{} // non-nil: Forward waits for it
	server   *ttrpc.Server
}

func (c *containerd) up() {
	c.t.Helper()
	os.Remove(c.path)
	l, err := net.Listen("unix", c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.server, err = ttrpc.NewServer(); err != nil {
		c.t.Fatal(err)
	}
	c.server.RegisterService(service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{method: c.forward}})
	c.server.RegisterService("other", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Ping": func(context.Context, func(any) error) (any, error) { return &emptypb.Empty{}, nil },
	}})
	server := c.server
	go func() { _ = server.Serve(context.Background(), l) }()
}

func (c *containerd) down() {
	c.server.Close()
	os.Remove(c.path)
}

func (c *containerd) forward(ctx context.Context, unmarshal func(any) error) (any, error) {
	// Unknown fields of an Empty are all of the message.
	var in emptypb.Empty
	if err := unmarshal(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	stall := c.stall
	c.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return nil, c.refuse
	}
	c.payloads = append(c.payloads, bytes.Clone(in.ProtoReflect().GetUnknown()))
	return &emptypb.Empty{}, nil
}

func (c *containerd) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var topics []string
	for _, p := range c.payloads {
		var r eventsapi.ForwardRequest
		if err := proto.Unmarshal(p, &r); err != nil {
			c.t.Error(err)
		}
		topics = append(topics, r.Envelope.Topic)
	}
	return topics
}

func newStand(t *testing.T, cfg Config) (*containerd, *Forwarder, proxy.Dialer) {
	t.Helper()
	dir := t.TempDir()
	c := &containerd{t: t, path: filepath.Join(dir, "c")}
	c.up()
	t.Cleanup(func() { c.server.Close() })
	cfg.Dial = proxy.DialUnix(c.path)
	f := New(cfg)
	path := filepath.Join(dir, "f")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = f.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = f.Close(ctx)
	})
	return c, f, proxy.DialUnix(path)
}

func request(topic string, size int) *eventsapi.ForwardRequest {
	return &eventsapi.ForwardRequest{Envelope: &types.Envelope{
		Topic: topic, Namespace: "n", Event: &anypb.Any{TypeUrl: "t", Value: make([]byte, size)},
	}}
}

// publish sends an event as containerd's publisher does.
func publish(t *testing.T, dial proxy.Dialer, topic string, size int) error {
	ctx, cancel := context.WithTimeout(ttrpc.WithMetadata(t.Context(), ttrpc.MD{"k": {"v"}}), time.Minute)
	defer cancel()
	return proxy.Invoke(ctx, dial, service, method, request(topic, size), &emptypb.Empty{})
}

func wantTopics(t *testing.T, c *containerd, want []string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !slices.Equal(c.got(), want) {
		if time.Now().After(deadline) {
			t.Fatalf("events %q, want %q", c.got(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// frame is a request as ttrpc sends it: length, stream id (odd, rising), type 1 for a request, no flags, and the message.
func frame(stream uint32, topic string, size int, timeout time.Duration) []byte {
	payload, _ := proto.Marshal(request(topic, size))
	body, _ := proto.Marshal(&ttrpc.Request{Service: service, Method: method, Payload: payload, TimeoutNano: timeout.Nanoseconds()})
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	head = binary.BigEndian.AppendUint32(head, stream)
	return append(append(head, 1, 0), body...)
}

func topics(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint("/", i))
	}
	return all
}

// An event is acknowledged when containerd has it, byte for byte.
func TestForward(t *testing.T) {
	c, _, dial := newStand(t, Config{AckAfter: time.Minute})
	payload, _ := proto.Marshal(request("/a", 10))
	payload = append(payload, "\xa2\x06\x03new"...) // a field that we do not know
	if _, err := proxy.Exchange(t.Context(), dial, &ttrpc.Request{Service: service, Method: method, Payload: payload}); err != nil {
		t.Fatal(err)
	}
	if len(c.payloads) != 1 || !bytes.Equal(c.payloads[0], payload) {
		t.Errorf("containerd got %x, want %x", c.payloads, payload)
	}
	for i := range 20 {
		if err := publish(t, dial, fmt.Sprint("/", i), 1); err != nil {
			t.Fatal(err)
		}
		if n := len(c.got()); n != i+2 {
			t.Fatalf("acknowledged before it arrived: %d events", n)
		}
	}
}

// containerd restarts: the delegate is not kept, and all comes in order.
func TestContainerdAway(t *testing.T) {
	c, _, dial := newStand(t, Config{AckAfter: 10 * time.Millisecond})
	c.down()
	for _, topic := range topics(30) {
		if err := publish(t, dial, topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	c.up()
	wantTopics(t, c, topics(30))
}

// containerd hangs and is killed with an event in its hands: at least once.
func TestContainerdHangs(t *testing.T) {
	c, _, dial := newStand(t, Config{AckAfter: 10 * time.Millisecond})
	c.mu.Lock()
	c.stall = make(chan struct{})
	c.mu.Unlock()
	for _, topic := range topics(5) {
		if err := publish(t, dial, topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.got(); len(got) != 0 {
		t.Fatalf("events %q came through a containerd that hangs", got)
	}
	c.mu.Lock()
	close(c.stall)
	c.stall = nil
	c.mu.Unlock()
	wantTopics(t, c, topics(5))
}

// What containerd refuses is the delegate's to know; the next event goes on.
func TestRefused(t *testing.T) {
	c, _, dial := newStand(t, Config{})
	c.mu.Lock()
	c.refuse = status.Error(codes.InvalidArgument, "bad topic")
	c.mu.Unlock()
	if err := publish(t, dial, "/bad", 1); status.Code(err) != codes.InvalidArgument {
		t.Errorf("refused event: %v", err)
	}
	c.mu.Lock()
	c.refuse = nil
	c.mu.Unlock()
	if err := publish(t, dial, "/good", 1); err != nil {
		t.Error(err)
	}
	wantTopics(t, c, []string{"/good"})
}

// The tap sees all in order, and what it hides is acknowledged and not sent.
func TestTap(t *testing.T) {
	var seen []string
	c, _, dial := newStand(t, Config{Tap: func(topic string, ev *anypb.Any) bool {
		seen = append(seen, topic+" "+ev.TypeUrl)
		return topic != "/1"
	}})
	for _, topic := range topics(3) {
		if err := publish(t, dial, topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	wantTopics(t, c, []string{"/0", "/2"})
	if want := []string{"/0 t", "/1 t", "/2 t"}; !slices.Equal(seen, want) {
		t.Errorf("the tap saw %q, want %q", seen, want)
	}
}

// A full queue stops reading: the delegate waits, and memory is bounded.
func TestBackPressure(t *testing.T) {
	c, f, dial := newStand(t, Config{AckAfter: time.Millisecond, MaxBytes: 4000})
	c.down()
	for _, topic := range topics(3) {
		if err := publish(t, dial, topic, 1000); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(frame(1, "/never", 1000, 100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	// Its answer says that it waits for room no longer.
	head := make([]byte, 10)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	answer, response := make([]byte, binary.BigEndian.Uint32(head)), &ttrpc.Response{}
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(answer, response); err != nil || response.Status.GetCode() != int32(codes.DeadlineExceeded) {
		t.Errorf("an event for which there is no room: %v, %v", response, err)
	}
	f.mu.Lock()
	if f.bytes > 4000 || f.queue.Len() != 3 {
		t.Errorf("queue of %d events, %d bytes", f.queue.Len(), f.bytes)
	}
	f.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- publish(t, dial, "/3", 1000) }()
	time.Sleep(50 * time.Millisecond)
	c.up()
	if err := <-done; err != nil {
		t.Errorf("an event that waited for room: %v", err)
	}
	wantTopics(t, c, topics(4))
}

// Events that a connection pipelines keep their order.
func TestOrderOfOneConnection(t *testing.T) {
	c, _, dial := newStand(t, Config{})
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var frames []byte
	for i, topic := range topics(200) {
		frames = append(frames, frame(uint32(2*i+1), topic, 1, 0)...)
	}
	if _, err := conn.Write(frames); err != nil {
		t.Fatal(err)
	}
	wantTopics(t, c, topics(200))
}

// Close delivers what is queued, and says what it could not.
func TestClose(t *testing.T) {
	c, f, dial := newStand(t, Config{AckAfter: time.Millisecond})
	c.down()
	for _, topic := range topics(3) {
		if err := publish(t, dial, topic, 1); err != nil {
			t.Fatal(err)
		}
	}
	var back sync.WaitGroup
	back.Go(func() { time.Sleep(50 * time.Millisecond); c.up() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	back.Wait()
	wantTopics(t, c, topics(3))

	c, f, dial = newStand(t, Config{AckAfter: time.Millisecond})
	c.down()
	if err := publish(t, dial, "/x", 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Close(ctx); err == nil || err.Error() != "1 events did not reach containerd: context deadline exceeded" {
		t.Errorf("close without containerd: %v", err)
	}
}

// What is not an event passes to containerd.
func TestOtherServices(t *testing.T) {
	_, _, dial := newStand(t, Config{})
	if err := proxy.Invoke(t.Context(), dial, "other", "Ping", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
	if err := proxy.Invoke(t.Context(), dial, "none", "Ping", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown service: %v", err)
	}
}
