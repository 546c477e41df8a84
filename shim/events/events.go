// SPDX-License-Identifier: Apache-2.0

// Package events forwards the delegate's events to containerd: a ttrpc server that takes the place of containerd's
// for the delegate (TTRPC_ADDRESS), and a queue that keeps their order.
//
// Each Forward request is sent on as it came, byte for byte, one after the other. The delegate is answered when
// containerd has answered, so an event that is lost with us is still the delegate's to repeat. When containerd is away
// for longer than AckAfter (a restart), the delegate is answered from the queue instead, because delegates drop an
// event after a few attempts; those are then held in our memory alone. The queue is bounded in bytes: when it is full,
// nothing more is read from the delegate.
//
// Delivery is at least once, in order: an event whose answer was lost, with containerd or with the delegate, comes
// twice. Requests for other services pass to containerd as they are.
package events

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"metsuke.dev/metsuke/shim/proxy"
)

const (
	service = "containerd.services.events.ttrpc.v1.Events"
	method  = "Forward"

	// sendTimeout bounds one attempt to hand an event to containerd; it is that of containerd's own publisher.
	sendTimeout = 5 * time.Second
	minBackoff  = 20 * time.Millisecond
	maxBackoff  = 2 * time.Second
)

// Config is what a Forwarder needs. The zero values of AckAfter and MaxBytes give the defaults.
type Config struct {
	// Dial connects to containerd's ttrpc socket.
	Dial proxy.Dialer
	// Tap sees every event in order, before it is queued, and says whether it is forwarded; one that is not is
	// answered as if it were. It must not wait: nothing is read from the delegate meanwhile. An event that the
	// delegate repeats is seen again. nil: all are forwarded.
	Tap func(topic string, event *anypb.Any) (forward bool)
	// AckAfter is how long the delegate waits for containerd's answer before it is answered from the queue; it must
	// be shorter than a delegate's own timeout (5 s in containerd's publisher). Default 2 s.
	AckAfter time.Duration
	// MaxBytes bounds the queue. Default 4 MiB.
	MaxBytes int
}

// Forwarder is the events server of one delegate. Its methods are safe for concurrent use.
type Forwarder struct {
	cfg    Config
	server *proxy.Server

	mu     sync.Mutex
	queue  *list.List    // of *item, oldest first; the first may be under way
	bytes  int           // of payload in queue
	room   chan struct{} // closed and replaced when bytes shrinks
	wake   chan struct{} // has an element when queue may have grown
	ctx    context.Context
	cancel context.CancelFunc
	sender sync.WaitGroup
}

type item struct {
	request *ttrpc.Request
	topic   string
	acked   bool          // the delegate has its answer
	done    chan struct{} // closed when containerd has answered
	err     error         // containerd's answer; valid after done
}

// New makes a forwarder and starts its sender.
func New(cfg Config) *Forwarder {
	if cfg.AckAfter == 0 {
		cfg.AckAfter = 2 * time.Second
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4 << 20
	}
	f := &Forwarder{cfg: cfg, queue: list.New(), room: make(chan struct{}), wake: make(chan struct{}, 1)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.server = proxy.New(proxy.Config{Dial: cfg.Dial, Intercept: f.intercept})
	f.sender.Go(f.send)
	return f
}

// Serve takes the delegate's connections until Close.
func (f *Forwarder) Serve(l net.Listener) error { return f.server.Serve(l) }

// intercept runs in the order in which requests come; what it queues is in that order.
func (f *Forwarder) intercept(call *proxy.Call) proxy.Handler {
	if call.Service != service || call.Method != method {
		return nil
	}
	received := time.Now()
	var forward eventsapi.ForwardRequest
	if err := proto.Unmarshal(call.Payload, &forward); err != nil {
		// containerd's to refuse.
		log.L.WithError(err).Warn("the delegate sent an event that cannot be read; passing it on")
	} else if f.cfg.Tap != nil && !f.cfg.Tap(forward.GetEnvelope().GetTopic(), forward.GetEnvelope().GetEvent()) {
		return func(context.Context, *proxy.Call, proxy.Next) ([]byte, error) { return nil, nil }
	}
	it := &item{request: call.Request(), topic: forward.GetEnvelope().GetTopic(), done: make(chan struct{})}
	if !f.push(it, call.Timeout(), received) {
		// The delegate has given up on it by now, and will send it again.
		return func(context.Context, *proxy.Call, proxy.Next) ([]byte, error) {
			return nil, context.DeadlineExceeded
		}
	}
	return func(ctx context.Context, _ *proxy.Call, _ proxy.Next) ([]byte, error) {
		timer := time.NewTimer(f.cfg.AckAfter)
		defer timer.Stop()
		select {
		case <-it.done:
		case <-timer.C:
		case <-ctx.Done():
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		select {
		case <-it.done:
			return nil, it.err
		default:
			it.acked = true
			return nil, nil
		}
	}
}

// push queues it, and waits for room for as long as the sender of the event waits for an answer.
func (f *Forwarder) push(it *item, timeout time.Duration, since time.Time) bool {
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout - time.Since(since))
		defer timer.Stop()
		expired = timer.C
	}
	size := len(it.request.Payload)
	for {
		f.mu.Lock()
		if f.queue.Len() == 0 || f.bytes+size <= f.cfg.MaxBytes {
			f.queue.PushBack(it)
			f.bytes += size
			f.mu.Unlock()
			select {
			case f.wake <- struct{}{}:
			default:
			}
			return true
		}
		room := f.room
		f.mu.Unlock()
		select {
		case <-room:
		case <-expired:
			return false
		case <-f.ctx.Done():
			return false
		}
	}
}

func (f *Forwarder) front() *item {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.queue.Front(); e != nil {
		return e.Value.(*item)
	}
	return nil
}

// send hands the queue to containerd, the oldest first, for as long as it takes.
func (f *Forwarder) send() {
	backoff := minBackoff
	for {
		it := f.front()
		if it == nil {
			select {
			case <-f.wake:
				continue
			case <-f.ctx.Done():
				return
			}
		}
		err := f.forward(it)
		if err != nil && !isStatus(err) {
			if f.ctx.Err() != nil {
				return
			}
			log.L.WithError(err).WithField("topic", it.topic).Warn("containerd did not take an event; trying again")
			select {
			case <-time.After(backoff):
			case <-f.ctx.Done():
				return
			}
			backoff = min(2*backoff, maxBackoff)
			continue
		}
		backoff = minBackoff
		f.pop(it, err)
	}
}

func (f *Forwarder) forward(it *item) error {
	ctx, cancel := context.WithTimeout(f.ctx, sendTimeout)
	defer cancel()
	_, err := proxy.Exchange(ctx, f.cfg.Dial, it.request)
	return err
}

// isStatus says that containerd answered with an error, which is an answer: it is the delegate's to repeat.
func isStatus(err error) bool {
	_, ok := status.FromError(err)
	return ok && !errors.Is(err, ttrpc.ErrClosed)
}

func (f *Forwarder) pop(it *item, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue.Remove(f.queue.Front())
	f.bytes -= len(it.request.Payload)
	close(f.room)
	f.room = make(chan struct{})
	it.err = err
	close(it.done)
	if err != nil && it.acked {
		log.L.WithError(err).WithField("topic", it.topic).Error("containerd refused an event; it is lost")
	}
}

// Close takes what the delegate has still sent, hands the queue to containerd and ends, at the latest when ctx does.
// The delegate should be gone: its connections are read to their end for at most half a second otherwise. The error
// says how many events were not delivered.
func (f *Forwarder) Close(ctx context.Context) error {
	f.server.Stop()
	read, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_ = f.server.Wait(read) // what is not read by then is still with a delegate that lives
	left := f.flush(ctx)
	f.cancel()
	f.sender.Wait()
	f.server.Close()
	if left > 0 {
		return fmt.Errorf("%d events did not reach containerd: %w", left, ctx.Err())
	}
	return nil
}

// flush waits until the queue is empty or ctx ends, and returns how many are left.
func (f *Forwarder) flush(ctx context.Context) int {
	for {
		f.mu.Lock()
		n, room := f.queue.Len(), f.room
		f.mu.Unlock()
		if n == 0 {
			return 0
		}
		select {
		case <-room:
		case <-ctx.Done():
			return n
		}
	}
}
