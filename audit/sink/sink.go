// SPDX-License-Identifier: Apache-2.0

// Package sink is what the shipper and the places that it ships records to know of each other. The places are the packages below.
//
// Delivery is at least once. Who has the records tells those that came twice by [Record.ID], which each sink puts where consumers of its
// kind look for it; docs/shipping.md says where.
package sink

import (
	"context"
	"fmt"
	"time"

	"metsuke.dev/metsuke/audit"
)

// Record is one thing that is shipped: a record of a stream, or a statement about streams.
type Record struct {
	// ID is the same whenever this record is sent, and no other record's: 64 hex digits, and for the second event that a record becomes in
	// the form of OCSF "-finding" behind them. For a record of a stream they are its chain, a SHA-256 of it and of all records before it, so
	// the consumer finds them in the record and can compute them. For a statement they are the SHA-256 of its line.
	ID string
	// Stream is the directory of the record's stream below the root of all streams, <namespace>_<pod>_<uid>/<container>. All records of a
	// stream are sent in their order. Empty: a statement about the node.
	Stream string
	// Identity says whose record it is. Records share it, and it must not be changed. Of a statement about the node only Node is set.
	Identity *audit.Identity
	Seq      uint64        // number of the record in its stream; 0 for a statement
	Time     time.Time     // when it happened
	Kind     audit.Kind    // that of the record, or one of the kinds below
	Verdict  audit.Verdict // of a record of kind syscall; otherwise empty
	// Line is what is to be stored: one line of JSON without its newline, the record as it is in its stream, or an event of OCSF. It is
	// valid until Send returns.
	Line []byte
}

// Kinds of statements. Their lines are described in docs/shipping.md.
const (
	KindHead   audit.Kind = "head"   // how far a stream is signed
	KindLedger audit.Kind = "ledger" // a line of the node's ledger: which streams there are
	KindGap    audit.Kind = "gap"    // records of a stream are not shipped, how many and why
)

// Sink is a place that records are shipped to. The shipper calls its methods one after the other.
type Sink interface {
	// Send hands a batch over, which is not empty, and blocks until the far side has confirmed it or ctx ends. nil means that all of it is
	// stored, as durably as the far side can. After a [RefusedError] or a [BatchError] the shipper goes on as they say. Any other
	// error means that all, some or none may have arrived, and that the same records are sent again, after a while and for ever: what is
	// wrong with the connection, the credentials or the far side must be such an error, for it concerns no record.
	//
	// Errors must have no secrets in them, and may have up to a few hundred bytes that the far side has worded.
	Send(ctx context.Context, batch []Record) error
	// Check tells whether the far side can be reached and lets this client in, without storing anything. It blocks for as long as ctx lets it.
	Check(ctx context.Context) error
	// Close lets go of connections and files. It blocks for as long as ctx lets it.
	Close(ctx context.Context) error
}

// Reason says why a record is refused.
type Reason string

// The reasons of refusals.
const (
	TooLarge Reason = "too-large" // larger than the sink, or the far side, takes
	Refused  Reason = "refused"   // the far side says that it is not valid
)

// RefusedError says that the far side will never take some records of a batch. They are counted as lost, and a statement of kind gap is
// sent in their place.
type RefusedError struct {
	Refusals []Refusal // in the order of the batch
	Rest     error     // nil: all other records are confirmed; otherwise they are sent again
}

// Refusal is one record that is refused.
type Refusal struct {
	Index  int // in the batch
	Reason Reason
	Err    error // what the far side says
}

// Error implements error.
func (e *RefusedError) Error() string {
	if len(e.Refusals) == 0 {
		return "no record is refused"
	}
	first := e.Refusals[0]
	return fmt.Sprintf("%d records are refused, the first one as %s: %v", len(e.Refusals), first.Reason, first.Err)
}

// Unwrap returns Rest.
func (e *RefusedError) Unwrap() error { return e.Rest }

// BatchError says that the far side does not take a batch for what is in it, or for its size, and does not say which records are to blame.
// The shipper sends it in halves, down to single records.
type BatchError struct {
	Reason Reason
	Err    error // what the far side says
}

// Error implements error.
func (e *BatchError) Error() string { return fmt.Sprintf("the batch is %s: %v", e.Reason, e.Err) }

// Unwrap returns what the far side says.
func (e *BatchError) Unwrap() error { return e.Err }
