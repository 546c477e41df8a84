// SPDX-License-Identifier: Apache-2.0

// Package kafka ships records to a topic of Apache Kafka, as an idempotent producer that waits for all replicas in sync.
//
// A message's key is the record's stream, so a stream is in one partition, in its order; its value is the record's line. What stands in its
// headers, and what a topic should be set to, is in docs/shipping.md.
package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

// Names of the headers of a message.
const (
	HeaderID   = "metsuke-id"   // sink.Record.ID
	HeaderKind = "metsuke-kind" // sink.Record.Kind
)

// enough is how often it is waited for a batch in vain, while the topic can be seen, before another client has to do.
const enough = 3

// Sink is one topic. It implements sink.Sink.
type Sink struct {
	config *config.Kafka
	client *kgo.Client // nil: the next Send makes one
	flight *flight     // what client has; nil: nothing
	shown  shown
}

// New returns a sink. It does not connect.
func New(c *config.Kafka) *Sink { return &Sink{config: c} }

// Send implements sink.Sink. A batch that is not confirmed when ctx ends is still with the client, which goes on sending it: the next Send of
// the same records waits for them further, so that the topic has them once. After other errors the next Send begins with another client, which
// is another producer to the brokers; what it sends again can be there twice.
func (s *Sink) Send(ctx context.Context, batch []sink.Record) error {
	if s.flight != nil && !s.flight.carries(batch) {
		s.drop()
	}
	if s.flight == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
		s.flight = launch(s.client, batch)
	} else if err := seeTopic(ctx, s.client, s.config.Topic); err != nil {
		return s.explain(err) // and not only that there is no answer
	}
	select {
	case <-s.flight.done:
	case <-ctx.Done():
		if s.flight.vain++; s.flight.vain == enough {
			s.drop()
		}
		return s.explain(fmt.Errorf("not confirmed in time: %w", context.Cause(ctx)))
	}
	err := s.flight.result()
	s.flight = nil
	var content *sink.BatchError
	if err == nil || errors.As(err, &content) {
		return err
	}
	s.drop()
	return s.explain(err)
}

// Check implements sink.Sink.
func (s *Sink) Check(ctx context.Context) error {
	if s.client == nil {
		return s.connect(ctx)
	}
	if err := seeTopic(ctx, s.client, s.config.Topic); err != nil {
		return s.explain(err)
	}
	return nil
}

// Close implements sink.Sink.
func (s *Sink) Close(context.Context) error {
	s.drop()
	return nil
}

func (s *Sink) drop() {
	if s.client != nil {
		s.client.Close() // which ends the flight
		s.client, s.flight = nil, nil
	}
}

// connect makes a client, unless there is one, and looks whether the brokers let it see the topic.
func (s *Sink) connect(ctx context.Context) error {
	if s.client != nil {
		return nil
	}
	options, err := options(s.config, &s.shown)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	if err := seeTopic(ctx, client, s.config.Topic); err != nil {
		client.Close()
		return s.explain(err)
	}
	s.client = client
	return nil
}

// seeTopic asks for a topic, which it does not make.
func seeTopic(ctx context.Context, client *kgo.Client, name string) error {
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(response.Topics) != 1 {
		return fmt.Errorf("asked for 1 topic, the broker answers with %d", len(response.Topics))
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

// explain says what to do about an error.
func (s *Sink) explain(err error) error {
	do := ""
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		do = ": make it; Metsuke does not"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		do = ": let this user write to it"
	case errors.Is(err, kerr.InvalidTimestamp):
		do = ": is the node's clock right?"
	}
	return fmt.Errorf("kafka: topic %s: %w%s", s.config.Topic, credentials.Hide(err, s.shown.all()), do)
}
