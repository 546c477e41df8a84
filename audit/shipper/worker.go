// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

const (
	// quantum is how many bytes of a stream are read before another one's turn: who floods delays the others by no more than this for each
	// of them that floods as well.
	quantum = 64 << 10
	// saveEvery is how often a checkpoint is written at most, and saveRate how many bytes of it a second: one of thousands of streams is written less
	// often.
	saveEvery = time.Second
	saveRate  = 200 << 10
	markBytes = 300 // of a stream in a checkpoint, about
)

// worker ships to one sink: it reads the streams itself, from its own checkpoint, so that it waits for no other sink and none waits for it.
type worker struct {
	config  config.Sink
	to      sink.Sink
	root    string
	marks   string // directory of checkpoints
	metrics *Metrics
	streams *catalogue
	stopped <-chan struct{} // closed when nothing more is to be begun
	longest time.Duration   // wait before another attempt

	source     source
	batch      batch
	all        []extent // as of the last look
	turn       int      // of which of them it is the turn
	ledger     *ledgerCursor
	ledgerSize int64

	gone    []sink.Record // statements about streams that are not there any more, which the sink does not have yet
	telling int           // how many of them are in the batch

	unread error // about what could not be read for the batch; nil: there is nothing

	saved      time.Time
	unsaved    bool
	complained time.Time

	mu      sync.Mutex
	cursors map[string]*cursor // guarded by mu where others than the worker look at what is confirmed
}

func newWorker(o *Options, d Destination, streams *catalogue, stopped <-chan struct{}) (*worker, error) {
	w := &worker{
		config: d.Config, to: d.Sink, root: o.Root, marks: o.Checkpoints, metrics: o.Metrics, streams: streams, stopped: stopped, longest: cmp.Or(o.longestWait, longestWait),
		source: source{root: o.Root}, batch: batch{form: d.Config.Form, limit: d.Config.Batch}, cursors: map[string]*cursor{},
	}
	known, err := checkpoint.Load(o.Checkpoints, d.Config.Name)
	if errors.Is(err, fs.ErrNotExist) {
		known, err = &checkpoint.Checkpoint{}, nil
	}
	if err != nil {
		return nil, err
	}
	for path, mark := range known.Marks {
		if path != ledger.Name {
			w.cursors[path] = newCursor(path, mark)
		}
	}
	w.ledger = newLedgerCursor(o.Node, known.Marks[ledger.Name])
	return w, nil
}

// run ships until it is stopped, or, if once, until nothing is left. Attempts that are under way end with ctx. The error, if once, is that
// something was left.
func (w *worker) run(ctx context.Context, once bool) error {
	defer w.save(ctx, true)
	changed := w.refresh()
	for !isClosed(w.stopped) {
		if isClosed(changed) {
			changed = w.refresh()
		}
		w.gather(ctx)
		if len(w.batch.records) > 0 {
			if err := w.deliver(ctx, w.batch.records); err != nil {
				w.forget()
				break
			}
		}
		w.confirm() // without records too: there may be damage at the end of a stream
		w.save(ctx, false)
		if len(w.batch.records) > 0 {
			continue
		}
		if once && w.unread != nil {
			return fmt.Errorf("%w: %w", ErrLeft, w.unread)
		}
		if once {
			return nil
		}
		select {
		case <-w.stopped:
		case <-changed:
		case <-w.later():
		}
	}
	if once {
		return ErrLeft
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// later returns what ends when there may be something to do although no stream changes: a head that is not sent yet, a checkpoint that is not
// written, what could not be read.
func (w *worker) later() <-chan time.Time {
	wait := w.unsaved || w.unread != nil
	for _, c := range w.cursors {
		wait = wait || c.headDue
	}
	if !wait {
		return nil
	}
	return time.After(headEvery)
}

// gather fills the batch: a quantum of each stream that has something, in turns, until it is full or nothing is left.
func (w *worker) gather(ctx context.Context) {
	b := &w.batch
	b.reset()
	w.unread = nil
	if err := w.streams.unlisted(); err != nil {
		w.missed(ctx, err)
	}
	for w.telling = 0; w.telling < len(w.gone) && !b.full(); w.telling++ {
		b.put(w.gone[w.telling])
		b.lose(Removed, 1) // at least
	}
	ended := w.config.Form == config.FormOCSF // in which the ledger has no form
	for !ended && !b.full() {
		var err error
		if ended, err = w.ledger.read(w.root, w.ledgerSize, b); err != nil {
			w.missed(ctx, err)
		}
	}
	now := time.Now()
	for some := true; some && !b.full(); {
		some = false
		for range w.all {
			if b.full() {
				break
			}
			path := w.all[w.turn%len(w.all)].path
			w.turn = (w.turn + 1) % len(w.all)
			some = w.read(ctx, path, now) || some
		}
	}
}

// read reads a quantum of a stream, and reports whether more may be there.
func (w *worker) read(ctx context.Context, path string, now time.Time) (more bool) {
	c := w.cursors[path]
	if c.behind() {
		from := c.next.At
		ended, err := w.source.read(c, &w.batch, quantum)
		switch {
		case err != nil:
			w.missed(ctx, fmt.Errorf("stream %s: %w", path, err))
		case ended && w.source.reader.Segment().Number >= c.end.Segment: // otherwise it is gone
			c.drained = c.end
			w.tellDamage(path, c, now)
		}
		more = !ended && err == nil && c.next.At != from
	}
	if !w.batch.full() {
		w.source.head(c, &w.batch, now)
	}
	return more
}

// tellDamage adds the statement of damage that nothing is behind: the stream may never go on.
func (w *worker) tellDamage(path string, c *cursor, now time.Time) {
	if !c.damaged.found || c.damaged.told {
		return
	}
	g := gap{after: c.next.Seq, bytes: c.damaged.bytes, reason: Damaged}
	w.batch.addGap(path, w.identity(c), now, g)
	c.damaged = damage{found: true, told: true}
}

// identity is that of a stream, or, if no record of it was read, the node's.
func (w *worker) identity(c *cursor) *audit.Identity {
	if c.identity == nil {
		return w.ledger.node
	}
	return c.identity
}

// confirm says that what is in the batch is confirmed.
func (w *worker) confirm() {
	w.metrics.found(w.config.Name, &w.batch)
	w.gone, w.telling = slices.Delete(w.gone, 0, w.telling), 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.cursors {
		if c.next != c.confirmed {
			c.confirm()
			w.unsaved = true
		}
	}
	if w.ledger.next != w.ledger.confirmed {
		w.ledger.confirm()
		w.unsaved = true
	}
}

// forget takes back what is in the batch.
func (w *worker) forget() {
	for _, c := range w.cursors {
		c.forget()
	}
	w.ledger.forget()
}

// refresh takes in which streams there are, and how far they are written. It returns what is closed when that changes.
func (w *worker) refresh() (changed <-chan struct{}) {
	w.all, w.ledgerSize, changed = w.streams.list(w.all[:0])
	for _, e := range w.all {
		c := w.cursors[e.path]
		if c != nil && c.isOther(e.id) {
			w.drop(e.path, c)
			c = nil
		}
		if c == nil {
			c = newCursor(e.path, checkpoint.Mark{})
			w.mu.Lock()
			w.cursors[e.path] = c
			w.mu.Unlock()
		}
		c.end, c.next.ID = e.end, e.id
		w.source.lookForCut(c)
	}
	w.forgetGone()
	return changed
}

// forgetGone drops streams that are not there any more. What the sink does not have of them is lost, and it is told so.
func (w *worker) forgetGone() {
	if len(w.cursors) == len(w.all) { // each of them has a cursor
		return
	}
	for path, c := range w.cursors {
		if _, there := slices.BinarySearchFunc(w.all, path, func(e extent, path string) int { return strings.Compare(e.path, path) }); there {
			continue
		}
		w.drop(path, c)
	}
}

// drop forgets a stream that is not there any more.
func (w *worker) drop(path string, c *cursor) {
	if c.behind() {
		g := gap{after: c.next.Seq, reason: Removed}
		s, _ := gapRecord(nil, w.config.Form, path, w.identity(c), time.Now(), g)
		w.gone = append(w.gone, s)
	}
	w.mu.Lock()
	delete(w.cursors, path)
	w.mu.Unlock()
	w.unsaved = true
}

// missed takes note of what cannot be read now, and is tried again. It says so, unless something was said a moment ago.
func (w *worker) missed(ctx context.Context, err error) {
	w.unread = err
	if now := time.Now(); now.Sub(w.complained).Abs() >= time.Minute {
		w.complained = now
		log.G(ctx).WithField("sink", w.config.Name).WithField("error", brief(err)).Warn("not all can be read")
	}
}

// save writes the checkpoint, if there is something new in it and it is time, or now.
func (w *worker) save(ctx context.Context, now bool) {
	every := max(saveEvery, time.Duration(len(w.cursors)*markBytes)*time.Second/saveRate)
	since := time.Since(w.saved)
	if !w.unsaved || !now && since >= 0 && since < every {
		return
	}
	w.saved = time.Now()
	c := &checkpoint.Checkpoint{Sink: w.config.Name, Marks: make(map[string]checkpoint.Mark, len(w.cursors)+1)}
	for path, cursor := range w.cursors {
		if cursor.confirmed.At != (checkpoint.Mark{}).At {
			c.Marks[path] = cursor.confirmed
		}
	}
	if w.ledger.confirmed.Seq > 0 {
		c.Marks[ledger.Name] = w.ledger.confirmed
	}
	if err := c.Save(w.marks); err != nil {
		w.metrics.unsaved.Add(1, w.config.Name)
		log.G(ctx).WithError(err).Warn("a checkpoint is not written")
		return
	}
	w.unsaved = false
}

// confirmedMarks returns how far the sink is. It is safe for concurrent use.
func (w *worker) confirmedMarks() map[string]checkpoint.Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	marks := make(map[string]checkpoint.Mark, len(w.cursors))
	for path, c := range maps.All(w.cursors) {
		marks[path] = c.confirmed
	}
	return marks
}
