// SPDX-License-Identifier: Apache-2.0

package resident

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"metsuke.dev/metsuke/audit"
)

// What becomes of an event while the stream cannot be written is what guest/supervisor does with a call in the same
// process, but that the call waits for an acknowledgement instead of a write:
//
//	             until StallTimeout      after it, onLoss kill                 after it, onLoss continue
//	allowed      waits; the call too     lost; the call never runs (ordered)   lost; acknowledged, the call goes on
//	denied       waits; the call not     tried once more, or lost              lost; acknowledged
//
// The resident folds denials that have no credit, so they come as a count, which is kept on the disk, and later in a
// record. With delivery buffered, what is on its way after the loss became final has run: it is tried once more too.
// The first thing that is written when the stream works again is the loss record.

// Backoff between attempts to write.
const (
	firstBackoff = time.Millisecond
	lastBackoff  = 50 * time.Millisecond
)

const defaultStall = 10 * time.Second

var errFinal = errors.New("the stream was lost before")

// keeper writes to the stream and knows what is missing there. All but tell and stalls is for one goroutine.
type keeper struct {
	sink     Sink
	stall    time.Duration
	lenient  bool // onLoss continue
	ordered  bool
	abort    <-chan struct{} // nothing is tried again
	callback func(audit.Loss)
	toldOnce sync.Once
	stalls   atomic.Uint64 // events that had to wait

	folded uint64 // denials that were counted and are in no record

	final bool // onLoss kill was called for
	lossy bool // onLoss continue is in effect
	// What is missing and not told in the stream; nothing if reason is empty.
	reason, detail string
	count          uint64
	countFolded    uint64 // part of count that was counted as folded
}

func newKeeper(cfg Config, abort <-chan struct{}) *keeper {
	stall := cfg.StallTimeout
	if stall <= 0 {
		stall = defaultStall
	}
	return &keeper{
		sink: cfg.Sink, stall: stall, lenient: cfg.Start.Continue, ordered: cfg.Start.Ordered, abort: abort, callback: cfg.OnLoss,
	}
}

func (k *keeper) onLoss() string {
	if k.lenient {
		return "continue"
	}
	return "kill"
}

// tell calls for what the profile wants; if that is the container's end, once. It may be called concurrently.
func (k *keeper) tell(l audit.Loss) {
	select {
	case <-k.abort:
		return // there is nothing left to do it to
	default:
	}
	if k.lenient {
		go k.callback(l) // it may close us, which waits for who calls
		return
	}
	k.toldOnce.Do(func() { go k.callback(l) })
}

// fold counts n denials. An error means that there cannot be so many.
func (k *keeper) fold(n uint64) error {
	if k.folded+n > maxFolds {
		return fmt.Errorf("%d denials were counted and not told", k.folded+n)
	}
	k.folded += n
	_ = k.sink.Fold(n) // what the disk does not keep is lost only if this process dies as well
	return nil
}

// keep writes an event that stands for n folded denials, and tells whether it is to be acknowledged. If the stream fails
// it calls stalling and blocks, for the stall timeout at most.
func (k *keeper) keep(ev *audit.Event, n uint64, stalling func()) bool {
	if k.final {
		err := errFinal
		if ev.Syscall == nil || ev.Syscall.Verdict != audit.VerdictAllowed || !k.ordered { // a call that may have run
			err = k.append(ev, n)
		}
		if err != nil {
			k.add(audit.LossStream, err.Error(), max(n, 1), n)
		}
		return false
	}
	err := k.append(ev, n)
	if err != nil && !k.lossy {
		k.stalls.Add(1)
		stalling()
		for backoff, began := firstBackoff, time.Now(); err != nil && time.Since(began) < k.stall && k.sleep(backoff); {
			backoff = min(2*backoff, lastBackoff)
			err = k.append(ev, n)
		}
	}
	if err != nil {
		k.lose(max(n, 1), n, err)
	}
	return err == nil || k.lenient
}

// lose counts n events that will never be written and starts what the profile wants.
func (k *keeper) lose(n, folded uint64, err error) {
	k.add(audit.LossStream, err.Error(), n, folded)
	began := !k.lossy && !k.final
	k.lossy, k.final = k.lenient, !k.lenient
	if began {
		k.tell(audit.Loss{Reason: audit.LossStream, Count: n, OnLoss: k.onLoss(), Detail: err.Error()})
	}
}

// sleep sleeps unless nothing may wait any longer.
func (k *keeper) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-k.abort:
		return false
	}
}

// append writes an event, and before it the loss that the stream does not tell yet.
func (k *keeper) append(ev *audit.Event, n uint64) error {
	if err := k.recordLoss(); err != nil {
		return err
	}
	if err := k.sink.AppendFolded(ev, n); err != nil {
		return err
	}
	k.folded -= n
	return nil
}

func (k *keeper) add(reason, detail string, n, folded uint64) {
	if k.reason == "" {
		k.reason, k.detail = reason, detail
	}
	k.count += n
	k.countFolded += folded
	k.folded -= folded
}

// recordLoss writes the loss record if one is due.
func (k *keeper) recordLoss() error {
	if k.reason == "" {
		return nil
	}
	l := audit.Loss{Reason: k.reason, Count: k.count, Detail: k.detail}
	if k.final || k.lossy || k.reason == audit.LossSupervisor {
		l.OnLoss = k.onLoss()
	}
	if err := k.sink.AppendFolded(&audit.Event{Time: time.Now(), Kind: audit.KindLoss, Loss: &l}, k.countFolded); err != nil {
		return err
	}
	k.reason, k.detail, k.count, k.countFolded, k.lossy = "", "", 0, 0, false
	return nil
}

// finish accounts for the resident's end: death is why it is a loss, if it is one. It returns when that is written, or
// nothing may wait any longer.
func (k *keeper) finish(death error) {
	switch {
	case death != nil:
		k.add(audit.LossSupervisor, death.Error(), k.folded, k.folded)
	case k.folded > 0:
		k.add(audit.LossStream, "denials that were folded when the resident ended", k.folded, k.folded)
	}
	for backoff := firstBackoff; k.recordLoss() != nil; backoff = min(2*backoff, lastBackoff) {
		if !k.sleep(backoff) {
			return
		}
	}
}
