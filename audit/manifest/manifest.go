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
	// Boot is the id of the kernel's boot (random(4), boot_id) in which the line was written; an earlier version left it out.
	Boot string `json:"boot,omitempty"`
	// FlushInterval is how long a record of this writer's is not on the disk, at most, in nanoseconds. 0: its call waited for that.
	FlushInterval time.Duration `json:"flushInterval"`

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
	Head        *Point `json:"head,omitempty"` // how far the stream was signed before
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

// State is what the last line of a manifest tells the next writer.
type State struct {
	ID            string
	Listed        int
	Open          bool  // the writer had not closed the stream
	At            Point // what the line signs for; zero if it does not
	Boot          string
	FlushInterval time.Duration
}

// Resume reads the last line of a manifest as a writer of this node left it. ok is false for what is none: then a manifest begins anew.
func Resume(line []byte) (s State, ok bool) {
	var e Entry
	if line == nil || json.Unmarshal(line, &e) != nil || len(e.ID) != 32 || e.Listed < 0 {
		return State{}, false
	}
	return State{e.ID, e.Listed, e.Kind == Begin || e.Kind == Segment, e.point(), e.Boot, e.FlushInterval}, true
}

// point returns the place that the entry signs for.
func (e *Entry) point() Point {
	switch {
	case e.Begin != nil:
		return e.Begin.At
	case e.Close != nil:
		return e.Close.At
	case e.Segment != nil:
		return Point{Seq: e.Segment.Last, Chain: e.Segment.After, Segment: e.Segment.Number, Offset: e.Segment.Bytes}
	}
	return Point{}
}
