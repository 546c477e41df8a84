// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"metsuke.dev/metsuke/audit/sink"
)

// flight is a batch that a client has, and has not answered for yet. The client sends it until it has an answer: only so the brokers know what
// they have had before.
type flight struct {
	ids  []string
	errs []error
	left atomic.Int64  // records without an answer
	done chan struct{} // closed when there are none
	vain int           // how often somebody has waited for it in vain
}

// launch hands a batch to a client, without waiting. The client has room for it.
func launch(client *kgo.Client, batch []sink.Record) *flight {
	f := &flight{ids: make([]string, len(batch)), errs: make([]error, len(batch)), done: make(chan struct{})}
	f.left.Store(int64(len(batch)))
	for i := range batch {
		f.ids[i] = batch[i].ID
		client.Produce(context.Background(), message(&batch[i]), func(_ *kgo.Record, err error) {
			f.errs[i] = err
			if f.left.Add(-1) == 0 {
				close(f.done)
			}
		})
	}
	return f
}

// carries tells whether it is this batch.
func (f *flight) carries(batch []sink.Record) bool {
	return slices.EqualFunc(f.ids, batch, func(id string, r sink.Record) bool { return id == r.ID })
}

// result is what became of the batch, when it is done.
func (f *flight) result() error {
	var content error
	for _, err := range f.errs {
		switch reason := reasonOf(err); {
		case err == nil:
		case reason == "":
			return err
		default:
			// The broker judges the producer's batches, which are not ours; all records of one have its error.
			content = &sink.BatchError{Reason: reason, Err: fmt.Errorf("kafka: %w", err)}
		}
	}
	return content
}

// reasonOf says why a record will never be taken; "": it may be another time.
func reasonOf(err error) sink.Reason {
	switch {
	case errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge):
		return sink.TooLarge
	case errors.Is(err, kerr.InvalidRecord):
		return sink.Refused
	default:
		return ""
	}
}

// message is a record as the topic gets it. Its time is that of its sending: were it the record's, a topic would at once drop what comes
// after an outage that was longer than its retention, and refuse what a wrong clock has written.
func message(r *sink.Record) *kgo.Record {
	key := r.Stream
	if key == "" {
		key = r.Identity.Node
	}
	return &kgo.Record{
		Key:     []byte(key),
		Value:   slices.Clone(r.Line), // the client has it for longer than Send
		Headers: []kgo.RecordHeader{{Key: HeaderID, Value: []byte(r.ID)}, {Key: HeaderKind, Value: []byte(r.Kind)}},
	}
}
