// SPDX-License-Identifier: Apache-2.0

// Package manifest is the form of what is signed of an audit stream: its manifest, a journal of when writers opened and closed it and of
// the segments that are complete, and its head, which says how far it is signed. docs/adr/0014-signed-streams.md says why there are both.
package manifest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"metsuke.dev/metsuke/audit/journal"
)

// Name is the manifest's in the stream's directory, and Context what its lines are signed for.
const (
	Name    = "manifest"
	Context = "metsuke manifest 1"
)

// Kind says what a line is about, and with that which one of its payloads it has.
type Kind string

// The kinds of lines.
const (
	Begin   Kind = "begin"   // a writer has opened the stream
	Segment Kind = "segment" // a segment is complete
	Close   Kind = "close"   // the writer has closed the stream
)

// Entry is a line of the manifest.
type Entry struct {
	journal.Place
	Kind Kind   `json:"kind"`
	ID   string `json:"id"` // of the stream, from NewID: a directory that is made anew has another
	// Listed is the number up to which segments have a line of their own, or are older than the manifest.
	Listed int `json:"listed"`

	Begin   *Beginning `json:"begin,omitempty"`
	Segment *Complete  `json:"segment,omitempty"`
	Close   *Closing   `json:"close,omitempty"`
}

// Point is a place between two records.
type Point struct {
	Seq     uint64 `json:"seq"`     // number of the record before it; 0: there is none
	Chain   string `json:"chain"`   // that record's, 64 hex digits
	Segment int    `json:"segment"` // number of the segment that the next record goes to, unless that is full
	Offset  int64  `json:"offset"`  // its bytes so far
}

// Beginning says where a writer goes on, and who it is.
type Beginning struct {
	Stream      string `json:"stream"` // its directory below the root, as List orders by: <namespace>_<pod>_<uid>/<container>
	Node        string `json:"node"`
	ContainerID string `json:"containerID"`
	At          Point  `json:"at"`
	Cut         uint64 `json:"cut,omitempty"`  // bytes behind At that were no whole record, and are gone
	Head        *Point `json:"head,omitempty"` // what the head of the writer before told of
	// Broken says that the writer could not read all that was signed before: a slot of the head, or the manifest.
	Broken bool `json:"broken,omitempty"`
}

// Complete describes a segment to which nothing is added any more.
type Complete struct {
	Number int       `json:"number"`
	First  uint64    `json:"first"`  // numbers of its first and its last record
	Last   uint64    `json:"last"`   //
	Bytes  int64     `json:"bytes"`  // of the file, as it is before it is compressed
	Before string    `json:"before"` // chain of the record before the first one
	After  string    `json:"after"`  // chain of the last one
	SHA256 string    `json:"sha256"` // of these bytes, hex
	From   time.Time `json:"from"`   // times of its first and its last record
	To     time.Time `json:"to"`
}

// Closing says where a writer has left the stream.
type Closing struct {
	At     Point  `json:"at"`
	End    bool   `json:"end"`              // the last record is of kind end: the container has ended
	Folded uint64 `json:"folded,omitempty"` // denials that are counted beside the stream and in no record
}

// NewID returns a name for a stream: 32 hex digits, random.
func NewID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	return hex.EncodeToString(id[:])
}

// Check tells whether the entry has the payload of its kind and no other. A kind that this version does not know is an error too: what
// it means cannot be judged.
func (e *Entry) Check() error {
	have := map[Kind]bool{
		Begin: e.Begin != nil, Segment: e.Segment != nil, Close: e.Close != nil,
	}
	own, known := have[e.Kind]
	if !known {
		return fmt.Errorf("%w: kind %q", journal.ErrVersion, e.Kind)
	}
	n := 0
	for _, set := range have {
		if set {
			n++
		}
	}
	if !own || n != 1 {
		return fmt.Errorf("kind %q needs its own payload and no other", e.Kind)
	}
	return nil
}

// Resume returns the stream's id and what is listed, from the last line of a manifest as the writer of this node left it. ok is false
// for what is none: then a manifest begins anew.
func Resume(line []byte) (id string, listed int, ok bool) {
	var e Entry
	if line == nil || json.Unmarshal(line, &e) != nil || len(e.ID) != 32 || e.Listed < 0 {
		return "", 0, false
	}
	return e.ID, e.Listed, true
}
