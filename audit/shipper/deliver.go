// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/containerd/log"

	"metsuke.dev/metsuke/audit/sink"
)

// Bounds of the wait before another attempt.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 30 * time.Second
)

// delivery hands one batch to a sink, for as long as it takes.
type delivery struct {
	*worker
	ctx      context.Context // of attempts
	wait     time.Duration
	doubtful int // how often the same record was refused
}

// doubts is how often a record must be refused to be given up: what was said to concern it may have been a passing fault of the far side's.
const doubts = 3

func (d *delivery) doubt() bool {
	d.doubtful++
	return d.doubtful < doubts
}

// suspect is a record that is to be given up.
type suspect struct {
	sink.Record
	reason sink.Reason
	err    error
}

// deliver returns nil when the sink has all records, or the statements of those that it does not take. An error means that the shipper is to end.
func (w *worker) deliver(ctx context.Context, records []sink.Record) error {
	return (&delivery{worker: w, ctx: ctx, wait: min(firstWait, w.longest)}).send(records)
}

// send sends records until each is confirmed or given up. What the sink refuses without saying which record is to blame is sent in halves.
func (d *delivery) send(records []sink.Record) error {
	for len(records) > 0 {
		err := d.attempt(records)
		var refused *sink.RefusedError
		var whole *sink.BatchError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refused) && len(refused.Refusals) > 0:
			records, err = d.refuse(records, refused)
		case errors.As(err, &whole) && len(records) == 1 && d.doubt():
			err = d.pause(err)
		case errors.As(err, &whole) && len(records) == 1:
			records, err = d.giveUp(records, []suspect{{records[0], whole.Reason, whole.Err}})
		case errors.As(err, &whole):
			half := len(records) / 2
			err = d.send(records[:half])
			records = records[half:]
		default:
			err = d.pause(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refuse gives up the records that are refused, and returns those that are still to be sent.
func (d *delivery) refuse(records []sink.Record, refused *sink.RefusedError) (left []sink.Record, err error) {
	var suspects []suspect
	var others, those []sink.Record
	for i, r := range records {
		at := slices.IndexFunc(refused.Refusals, func(one sink.Refusal) bool { return one.Index == i })
		if at < 0 {
			others = append(others, r)
			continue
		}
		those = append(those, r)
		suspects = append(suspects, suspect{r, refused.Refusals[at].Reason, refused.Refusals[at].Err})
	}
	if refused.Rest == nil {
		d.metrics.confirmed(d.config.Name, others)
		return d.giveUp(those, suspects)
	}
	if left, err := d.giveUp(records, suspects); len(left) > 0 || err != nil {
		return left, err
	}
	return others, d.pause(refused.Rest)
}

// giveUp sends the statements that tell of suspects. A sink that does not take these takes nothing: then the fault is not the records', and
// they are left, for another attempt after a while.
func (d *delivery) giveUp(records []sink.Record, suspects []suspect) (left []sink.Record, err error) {
	statements := make([]sink.Record, 0, len(suspects))
	for _, s := range suspects {
		g := gap{after: s.Seq - min(s.Seq, 1), before: s.Seq + 1, reason: Reason(s.reason), chain: s.ID, detail: brief(s.err)}
		statement, _ := gapRecord(nil, d.config.Form, s.Stream, s.Identity, s.Time, g)
		statements = append(statements, statement)
	}
	if err := d.attempt(statements); err != nil {
		return records, d.pause(err)
	}
	for _, s := range suspects {
		d.metrics.lost(d.config.Name, Reason(s.reason), 1)
		log.G(d.ctx).WithField("sink", d.config.Name).WithField("stream", s.Stream).WithField("seq", s.Seq).
			WithField("reason", s.reason).WithField("error", brief(s.err)).Warn("a sink refuses a record, which is given up")
	}
	return nil, nil
}

// attempt sends records once.
func (d *delivery) attempt(records []sink.Record) error {
	ctx, cancel := context.WithTimeout(d.ctx, d.config.Timeout)
	defer cancel()
	began := time.Now()
	err := d.to.Send(ctx, records)
	d.metrics.attempt(d.config.Name, time.Since(began))
	if err == nil {
		d.doubtful = 0
		d.wait = min(firstWait, d.longest)
		d.metrics.confirmed(d.config.Name, records)
	}
	return err
}

// pause waits before another attempt, longer each time, at random, so that not all nodes come back at once. It says why the first time, and
// then when it waits as long as it ever does.
func (d *delivery) pause(because error) error {
	if d.ctx.Err() != nil {
		return d.ctx.Err()
	}
	d.metrics.retries.Add(1, d.config.Name)
	if d.wait <= firstWait || d.wait == d.longest {
		log.G(d.ctx).WithField("sink", d.config.Name).WithField("error", brief(because)).Warn("a sink does not take records; it is tried again")
	}
	select {
	case <-d.stopped:
		return context.Canceled
	case <-time.After(d.wait/2 + rand.N(d.wait/2)): //nolint:gosec // not a secret
	}
	d.wait = min(2*d.wait, d.longest)
	return nil
}

// maxBrief bounds what is repeated of an error, in bytes: the far side may have worded it.
const maxBrief = 512

func brief(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return text[:min(len(text), maxBrief)]
}
