// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"fmt"
	"sync"

	"metsuke.dev/metsuke/guest/channel"
)

// outbox is what the resident is to be told. Nobody waits for the resident to read it but the goroutine that sends.
type outbox struct {
	mu       sync.Mutex
	changed  *sync.Cond        // on mu
	messages []channel.Message // guarded by mu, as all below; bounded by the launches and controls under way
	acked    uint64            // all events up to it are to be acknowledged
	sent     uint64            // and have been
	closed   bool
}

func (o *outbox) init() { o.changed = sync.NewCond(&o.mu) }

// put adds a message.
func (o *outbox) put(m channel.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.messages = append(o.messages, m)
		o.changed.Signal()
	}
}

// ack has all events up to seq acknowledged; what is not sent yet goes as one.
func (o *outbox) ack(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked = seq
	o.changed.Signal()
}

// take blocks until there is something to send. After close there is nothing.
func (o *outbox) take() []channel.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.messages) == 0 && o.acked == o.sent && !o.closed {
		o.changed.Wait()
	}
	if o.closed {
		return nil
	}
	out := o.messages
	o.messages = nil
	if o.acked > o.sent {
		o.sent = o.acked
		out = append(out, channel.Ack{Seq: o.sent})
	}
	return out
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.messages = nil
	o.changed.Signal()
}

// send tells the resident what is in the outbox.
func (r *Resident) send() {
	to := channel.NewSender(&r.pipes, r.cfg.Start.Secret, channel.HostToGuest)
	for {
		messages := r.outbox.take()
		if messages == nil {
			return
		}
		for _, m := range messages {
			if err := to.Send(m); err != nil {
				r.end(fmt.Errorf("the resident does not read what it is told: %w", err))
				return
			}
		}
	}
}
