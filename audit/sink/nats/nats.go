// SPDX-License-Identifier: Apache-2.0

// Package nats ships records to a stream of NATS JetStream.
//
// A message's data is the record's line. Its id for JetStream, by which a stream stores what comes twice within its window of duplicates once,
// is the record's. What a stream should be set to is in docs/shipping.md.
package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

// Names of the headers of a message, beside JetStream's own.
const (
	HeaderKind   = "Metsuke-Kind"   // sink.Record.Kind
	HeaderStream = "Metsuke-Stream" // sink.Record.Stream, unless that is empty
)

// window is how many messages wait for their confirmation at most. A stream takes in some thousands at once, of all who publish to it, and
// refuses more.
const window = 256

// Sink is one stream of JetStream. It implements sink.Sink.
type Sink struct {
	config *config.NATS
	link   *link // nil: the next Send makes one
}

// New returns a sink. It does not connect.
func New(c *config.NATS) *Sink { return &Sink{config: c} }

// Send implements sink.Sink. A connection that has ended, or that ctx has cut off, is made anew by the next Send, with credentials that are
// read then.
func (s *Sink) Send(ctx context.Context, batch []sink.Record) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.link.cut)
	defer stop()
	var refusals []sink.Refusal
	at := 0
	for part := range slices.Chunk(batch, window) {
		refused, err := s.link.publish(ctx, s.config, part)
		for _, r := range refused {
			r.Index += at
			refusals = append(refusals, r)
		}
		if err != nil {
			return result(refusals, s.failed(ctx, err))
		}
		at += len(part)
	}
	return result(refusals, nil)
}

func result(refusals []sink.Refusal, rest error) error {
	if len(refusals) == 0 {
		return rest
	}
	return &sink.RefusedError{Refusals: refusals, Rest: rest}
}

// failed says what is wrong, and drops the connection unless it was the stream that answered.
func (s *Sink) failed(ctx context.Context, err error) error {
	var answer *jetstream.APIError
	if errors.As(err, &answer) {
		return fmt.Errorf("nats: stream %s: %w%s", s.config.Stream, credentials.Hide(err, s.link.shown), advice(answer))
	}
	if trouble := s.link.trouble(); trouble != nil {
		err = trouble
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("not confirmed in time: %w", context.Cause(ctx))
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		err = fmt.Errorf("no stream stores what is published to %s: make the stream %s: %w", s.config.Subject, s.config.Stream, err)
	}
	shown := s.link.shown
	s.drop()
	return fmt.Errorf("nats: %w", credentials.Hide(err, shown))
}

// Check implements sink.Sink.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.link.conn.FlushWithContext(ctx); err != nil {
		return s.failed(ctx, err)
	}
	return nil
}

// Close implements sink.Sink.
func (s *Sink) Close(context.Context) error {
	s.drop()
	return nil
}

func (s *Sink) drop() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

func (s *Sink) connect(ctx context.Context) error {
	if s.link != nil && s.link.conn.IsConnected() {
		return nil
	}
	s.drop()
	l, err := dial(ctx, s.config)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	s.link = l
	return nil
}

// publish hands some records over and waits for all of them.
func (l *link) publish(ctx context.Context, c *config.NATS, part []sink.Record) (refused []sink.Refusal, err error) {
	futures := make([]jetstream.PubAckFuture, len(part))
	for i := range part {
		futures[i], err = l.js.PublishMsgAsync(message(c, &part[i]), jetstream.WithRetryAttempts(0))
		switch {
		case errors.Is(err, nats.ErrMaxPayload):
			refused = append(refused, sink.Refusal{Index: i, Reason: sink.TooLarge, Err: err})
		case err != nil:
			return refused, err
		}
	}
	var failed error
	for i, f := range futures {
		if f == nil {
			continue
		}
		switch err := l.wait(ctx, f); {
		case err == nil:
		case errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
			refused = append(refused, sink.Refusal{Index: i, Reason: sink.TooLarge, Err: credentials.Hide(err, l.shown)})
		case failed == nil:
			failed = err
		}
	}
	slices.SortFunc(refused, func(a, b sink.Refusal) int { return a.Index - b.Index })
	return refused, failed
}

// wait waits for the stream's answer.
func (l *link) wait(ctx context.Context, f jetstream.PubAckFuture) error {
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return err
	case <-l.closed:
		return nats.ErrConnectionClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func message(c *config.NATS, r *sink.Record) *nats.Msg {
	m := &nats.Msg{Subject: c.Subject, Data: r.Line, Header: nats.Header{
		jetstream.MsgIDHeader:          {r.ID},
		jetstream.ExpectedStreamHeader: {c.Stream},
		HeaderKind:                     {string(r.Kind)},
	}}
	if r.Stream != "" {
		m.Header.Set(HeaderStream, r.Stream)
	}
	return m
}

// Codes of JetStream's answers, which the client library has no names for (the server's errors.json).
const (
	codeStreamMismatch = 10060 // another stream has the subject
	codeStoreFailed    = 10077 // the stream is full
)

// advice says what to do about an answer.
func advice(answer *jetstream.APIError) string {
	switch answer.ErrorCode {
	case codeStreamMismatch:
		return ": the subject is another stream's"
	case codeStoreFailed:
		return ": the stream cannot store more: is it full?"
	default:
		return ""
	}
}
