// SPDX-License-Identifier: Apache-2.0

// Package shipper ships the records of a node's streams to sinks: all records, at least once, each stream's in their order.
//
// Each sink is served by a goroutine of its own, which reads the streams itself, from the sink's own checkpoint, and hands over one batch
// after another. Between streams and sinks there is no queue, so a sink that stalls holds up neither another one nor the agents, and memory is
// bounded whatever is behind: the streams are what waits. A checkpoint moves when the sink has confirmed.
package shipper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit/checkpoint"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/internal/flock"
)

const (
	// measureEvery is how often it is measured how far sinks are.
	measureEvery = 10 * time.Second
	// grace is how long attempts that are under way may take when the shipper is to end, and closing of the sinks as long again.
	grace = 5 * time.Second
)

// Options say what is shipped.
type Options struct {
	Root        string // of the streams; it need not be there yet
	Checkpoints string // directory
	Node        string // name of the node, for statements about it
	Sinks       []Destination
	Metrics     *Metrics
	Once        bool   // ship what is there, and end
	Beat        func() // called while streams are looked at, several times a second; nil: not

	longestWait time.Duration // before another attempt; 0: longestWait
}

// Destination is a sink, and what is configured of it.
type Destination struct {
	Config config.Sink
	Sink   sink.Sink
}

// ErrLeft is wrapped by the error of Run when it was to ship once and ended before all was shipped.
var ErrLeft = errors.New("not all was shipped")

// Run ships until ctx ends, or, with Options.Once, until all is shipped that was there. Then it closes the sinks. It returns nil when it was told to
// end, and did. A directory of checkpoints is for one shipper at a time; it waits a moment for another one to end.
func Run(ctx context.Context, o Options) error {
	unlock, err := lock(o.Checkpoints)
	if err != nil {
		return err
	}
	defer unlock()
	streams := newCatalogue(o.Root)
	if err := streams.look(); err != nil {
		return fmt.Errorf("audit streams: %w", err)
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, stop) })()

	var workers []*worker
	for _, d := range o.Sinks {
		o.Metrics.foresee(d.Config.Name)
		w, err := newWorker(&o, d, streams, ctx.Done())
		if err != nil {
			return err
		}
		workers = append(workers, w)
	}
	left := make(chan error, len(workers))
	for _, w := range workers {
		go func() { left <- w.end(sending, o.Once) }()
	}
	done := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { follow(ctx, streams, &o, done) })
	beside.Go(func() { measureAll(streams, &o, workers, done) })
	err = wait(ctx, left, len(workers))
	close(done)
	beside.Wait()
	return err
}

// lock takes a directory of checkpoints, which is made if need be.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	if err := flock.Exclusive(dir, grace, 50*time.Millisecond); err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoints in %s: %w: another metsuke ship uses them", path, err), dir.Close())
	}
	return func() { _ = errors.Join(flock.Release(dir), dir.Close()) }, nil // only the lock was of interest
}

// wait waits for all workers, but when ctx has ended for no longer than they may take.
func wait(ctx context.Context, left <-chan error, n int) error {
	var errs []error
	ended := ctx.Done()
	var late <-chan time.Time
	for n > 0 {
		select {
		case err := <-left:
			errs = append(errs, err)
			n--
		case <-ended:
			ended, late = nil, time.After(3*grace)
		case <-late:
			return errors.Join(append(errs, fmt.Errorf("%d sinks do not end", n))...)
		}
	}
	return errors.Join(errs...)
}

// end runs the worker, and closes its sink.
func (w *worker) end(ctx context.Context, once bool) error {
	err := w.run(ctx, once)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := w.to.Close(closing); err != nil {
		log.G(ctx).WithField("sink", w.config.Name).WithField("error", brief(err)).Warn("a sink was not closed as it should be")
	}
	if err != nil {
		return fmt.Errorf("sink %s: %w", w.config.Name, err)
	}
	return nil
}

// follow looks at the streams until done.
func follow(ctx context.Context, streams *catalogue, o *Options, done <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		if err := streams.look(); err != nil {
			log.G(ctx).WithError(err).Warn("the audit streams cannot be looked at")
		}
		if o.Beat != nil {
			o.Beat()
		}
	}
}

// measureAll shows how far the sinks are until done.
func measureAll(streams *catalogue, o *Options, workers []*worker, done <-chan struct{}) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		all, _, _ := streams.list(nil)
		backlogs := map[string]Backlog{}
		for _, w := range workers {
			marks := w.confirmedMarks()
			backlogs[w.config.Name] = measure(o.Root, all, func(path string) checkpoint.Mark { return marks[path] })
		}
		o.Metrics.measure(len(all), backlogs, time.Now())
		select {
		case <-done:
			return
		case <-ticker.C:
		}
	}
}
