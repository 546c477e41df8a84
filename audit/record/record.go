// SPDX-License-Identifier: Apache-2.0

// Package record reads one record of an audit stream: the other direction of package audit's encoder.
// It treats what it reads as hostile. Nothing in it keeps state; all functions are safe for concurrent use.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"metsuke.dev/metsuke/audit"
)

// Record is one record of a stream.
type Record struct {
	Seq      uint64
	Identity audit.Identity
	Event    audit.Event
	Chain    string // 64 hex digits; empty for an event that is not (yet) part of a stream
}

// ErrForm is wrapped by the error for a line that is not a record of a version that this program reads.
var ErrForm = errors.New("not an audit record")

// Parse decodes one line, with or without its newline. It demands the fields that every record has, and
// the payload of the kinds it knows; fields and kinds that a newer Metsuke may have added are passed
// over (the event of an unknown kind has no payload). Errors wrap ErrForm. The result does not refer to line.
func Parse(line []byte) (*Record, error) {
	if len(line) > audit.MaxRecord {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrForm, audit.MaxRecord)
	}
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if w.V != audit.Version {
		return nil, fmt.Errorf("%w: version %d, this program reads version %d", ErrForm, w.V, audit.Version)
	}
	if w.Seq == 0 || w.Kind == "" {
		return nil, fmt.Errorf("%w: seq or kind is missing", ErrForm)
	}
	at, err := time.Parse(time.RFC3339Nano, w.Time)
	if err != nil {
		return nil, fmt.Errorf("%w: time: %w", ErrForm, err)
	}
	r := &Record{Seq: w.Seq, Chain: w.Chain}
	r.Event.Time = at
	u := unquoter{}
	r.Identity = audit.Identity{
		Node: u.text(w.Node), Namespace: u.text(w.Namespace), Pod: u.text(w.Pod), PodUID: u.text(w.PodUID),
		Container: u.text(w.Container), ContainerID: u.text(w.ContainerID),
		Profile: u.text(w.Profile), ProfileDigest: u.text(w.ProfileDigest),
	}
	r.Event.Exec, r.Event.Kind = u.text(w.Exec), audit.Kind(u.text(w.Kind))
	w.payload(&r.Event, &u)
	if u.failed {
		return nil, fmt.Errorf("%w: a string has a broken $'…' form", ErrForm)
	}
	return r, nil
}

// ParseStrict is Parse for a line that must be exactly what this version's encoder writes: it encodes the
// result again and compares. So unknown, repeated, missing or misplaced fields are refused as well.
func ParseStrict(line []byte) (*Record, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	r, err := Parse(line)
	if err != nil {
		return nil, err
	}
	if err := r.Event.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(r.Append(nil), line) {
		return nil, fmt.Errorf("%w: not in the form that version %d writes", ErrForm, audit.Version)
	}
	return r, nil
}

// Append appends the record as the stream has it, without a newline.
func (r *Record) Append(dst []byte) []byte {
	dst = r.Event.AppendJSON(dst, &r.Identity, r.Seq)
	if r.Chain == "" {
		return dst
	}
	chain, err := json.Marshal(r.Chain)
	if err != nil { // a string always marshals
		panic(err)
	}
	dst = append(dst[:len(dst)-1], `,"chain":`...)
	return append(append(dst, chain...), '}')
}
