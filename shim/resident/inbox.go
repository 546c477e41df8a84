// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"fmt"
	"sync"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/guest/channel"
)

// ackBytes is how much is written before it is acknowledged although there is more to write.
const ackBytes = 64 << 10

// maxFolds bounds the denials that the resident may claim to have counted.
const maxFolds = 1 << 40

// inbox holds what has come and is not in the stream. The credit bounds the events, and so everything.
type inbox struct {
	mu      sync.Mutex
	changed *sync.Cond // on mu
	items   []item     // guarded by mu, as all below
	last    uint64     // number of the last event
	bytes   int        // of records that are not acknowledged
	closed  bool
}

// item is an event, or a count of folded denials.
type item struct {
	event channel.Event // without a Record: a count
	folds uint64
	at    time.Time // when it came
}

func (b *inbox) init() { b.changed = sync.NewCond(&b.mu) }

// onEvent takes an event in.
func (r *Resident) onEvent(m channel.Event) error {
	if !r.isReady() {
		return broke(errNotReady)
	}
	return broke(r.inbox.add(m, int(r.cfg.Start.Credit)))
}

func (b *inbox) add(m channel.Event, credit int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	if m.Seq != b.last+1 {
		return fmt.Errorf("event %d follows event %d", m.Seq, b.last)
	}
	if b.bytes += len(m.Record); b.bytes > credit {
		return fmt.Errorf("%d bytes of events are not acknowledged, %d are allowed", b.bytes, credit)
	}
	b.last++
	b.items = append(b.items, item{event: m, at: time.Now()})
	b.changed.Signal()
	return nil
}

// fold takes a count in. Counts that come one after another become one.
func (b *inbox) fold(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	n = min(n, maxFolds+1) // the sum cannot wrap: a sum above maxFolds is a violation as soon as it is looked at
	if i := len(b.items) - 1; i >= 0 && b.items[i].event.Record == nil {
		b.items[i].folds = min(b.items[i].folds+n, maxFolds+1)
		return
	}
	b.items = append(b.items, item{folds: n})
	b.changed.Signal()
}

// take blocks until something is there and returns all of it; nothing once the inbox is closed and empty.
func (b *inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.items) == 0 && !b.closed {
		b.changed.Wait()
	}
	items := b.items
	b.items = nil
	return items
}

// settle gives back the credit of n bytes.
func (b *inbox) settle(n int) {
	b.mu.Lock()
	b.bytes -= n
	b.mu.Unlock()
}

// close ends what is taken in: a resident that still speaks after its end is not believed, nor waited for.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.changed.Signal()
}

// keep puts what comes into the stream and acknowledges it, and in the end what is lost.
func (r *Resident) keep() {
	defer close(r.kept)
	k := r.keeper
	for {
		items := r.inbox.take()
		if items == nil {
			break
		}
		if err := r.keepAll(items); err != nil {
			r.end(broke(err))
			break
		}
	}
	<-r.judged
	k.finish(r.death)
}

// keepAll keeps what came together. An error means that it breaks the rules.
func (r *Resident) keepAll(items []item) error {
	bytes, last := 0, uint64(0) // to be acknowledged
	acknowledge := func() {
		if last > 0 {
			r.inbox.settle(bytes)
			r.outbox.ack(last)
			bytes, last = 0, 0
		}
	}
	defer acknowledge()
	for _, it := range items {
		if it.event.Record == nil {
			if err := r.keeper.fold(it.folds); err != nil {
				return err
			}
			continue
		}
		ev, err := r.read(it)
		if err != nil {
			return err
		}
		// Calls whose records are written do not wait for one that cannot be.
		if r.keeper.keep(ev, it.event.Folded, acknowledge) {
			bytes, last = bytes+len(it.event.Record), it.event.Seq
		}
		if bytes >= ackBytes {
			acknowledge()
		}
	}
	return nil
}

// read reads an event and does what it asks for beside being written.
func (r *Resident) read(it item) (*audit.Event, error) {
	if it.event.Folded > r.keeper.folded {
		return nil, fmt.Errorf("event %d stands for more denials than were counted", it.event.Seq)
	}
	ev, err := readEvent(it)
	if err != nil {
		return nil, err
	}
	switch {
	case ev.Loss != nil:
		ev.Loss.OnLoss = r.keeper.onLoss()
		if !r.keeper.lenient { // else the record is all that is to be done, and they may be many
			r.keeper.tell(*ev.Loss)
		}
	case ev.Syscall.Verdict == audit.VerdictKilled:
		r.killed.Add(max(ev.Syscall.Count, 1))
	}
	return ev, nil
}
