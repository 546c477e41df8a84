// SPDX-License-Identifier: Apache-2.0

// Package pods tells which pods run under Metsuke on this node, under which profile, and what became of their calls.
//
// Each fact comes from where it is known. That a pod is there, and who its containers are, is what its shim has left on
// disk, which outlives a kill -9; that it runs is what its shim answers. Counters are the shim's, from its memory; a
// container's state and usage are the delegate's, asked through the shim; receipts and denials are read in the stream,
// at the places that the shim names. So nothing here reads a stream from its beginning while the shim answers.
//
// Whoever does not answer is said to be silent, after [Node.Patience], and holds up no other pod. All strings may come
// from pods and workloads: escape them before they are shown on a terminal.
package pods

import (
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/shim/status"
)

// Version is the version of the form that a Pod has as JSON. Within a version fields are only added.
const Version = 1

// State is what became of a pod's shim.
type State string

// The states of a pod.
const (
	Running     State = "running"     // its shim answers
	Unreachable State = "unreachable" // its shim lives, and gave no answer in time
	Dead        State = "dead"        // its shim is gone, and containerd has not cleaned up yet: nothing is watched
)

// States of a container beside those of its pod's shim and those that containerd knows (created, running, paused,
// stopped, …).
const (
	Creating = "creating" // its Create has not returned
	Unknown  = "unknown"  // the delegate did not say
)

// Pod is one pod. A container that CRI did not make is a pod of its own.
type Pod struct {
	V          int         `json:"v"`         // Version
	Namespace  string      `json:"namespace"` // of Kubernetes; without CRI that of containerd
	Name       string      `json:"name"`      // empty: its sandbox has not been created yet
	UID        string      `json:"uid"`
	SandboxID  string      `json:"sandboxID"` // containerd's id of the container that made the pod
	State      State       `json:"state"`
	Created    time.Time   `json:"created"`
	Delegate   Delegate    `json:"delegate"`
	Shim       Shim        `json:"shim"`
	Containers []Container `json:"containers"`         // in the order of their creation; the sandbox is not among them
	Problems   []string    `json:"problems,omitempty"` // what could not be found out, for people
}

// Delegate is the shim that really runs the pod.
type Delegate struct {
	Type   string `json:"type"` // runtime type; empty: not known yet
	Binary string `json:"binary"`
	PID    int    `json:"pid"`
	Alive  bool   `json:"alive"`
}

// Shim is the pod's process of Metsuke. The first four are the zero value if it does not answer.
type Shim struct {
	Version string         `json:"version"`
	PID     int            `json:"pid"`
	Started *time.Time     `json:"started"`
	Phases  []status.Phase `json:"phases,omitempty"` // of the starts of its containers
	Address string         `json:"address"`
	Config  string         `json:"config"` // its configuration file; empty: the default one
	Dir     string         `json:"dir"`    // of its state
}

// Container is one container.
type Container struct {
	Name          string     `json:"name"`
	ID            string     `json:"id"`
	Image         string     `json:"image"`
	Profile       string     `json:"profile"`
	ProfileDigest string     `json:"profileDigest"`
	Placement     string     `json:"placement"` // of its supervisor; empty: it has none (passthrough)
	State         string     `json:"state"`     // a State of its pod that is not running, or the container's own
	PID           uint32     `json:"pid"`       // on the node; of the VMM if the delegate tells no other
	ExitStatus    *uint32    `json:"exitStatus"`
	Created       time.Time  `json:"created"`
	Exited        *time.Time `json:"exited"`
	Stream        *Stream    `json:"stream"` // null: it has none (passthrough)

	// Of Inspect alone.
	Usage    *status.Usage `json:"usage,omitempty"` // nil: it does not run, or nobody says
	Drift    *Drift        `json:"drift,omitempty"`
	Receipt  *Record       `json:"receipt,omitempty"`  // what was found in force before the workload's first instruction
	Sessions []*Record     `json:"sessions,omitempty"` // exec sessions that run
	Denials  []*Record     `json:"denials,omitempty"`  // the newest, oldest first
	Limits   []*Record     `json:"limits,omitempty"`   // the newest request of each resource that was lowered
	Losses   []*Record     `json:"losses,omitempty"`   // the newest of each reason
}

// Stream is a container's audit stream.
type Stream struct {
	Dir        string        `json:"dir"`
	Events     uint64        `json:"events"`     // in all, of earlier instances of the container too
	Counts     *tally.Counts `json:"counts"`     // nil: not counted
	Counted    Counted       `json:"counted"`    // what Counts are of
	Stalls     uint64        `json:"stalls"`     // audited calls that had to wait because the stream could not be written
	LastDenial *Record       `json:"lastDenial"` // nil: none, or not known

	// Of Inspect alone.
	Segments int   `json:"segments,omitempty"`
	Bytes    int64 `json:"bytes,omitempty"`
}

// Drift is what a container would get if it was created now, of the same pod under the same configuration file: running
// containers keep the profile that they began with.
type Drift struct {
	Changed bool   `json:"changed"` // it would get something else, or be refused
	Profile string `json:"profile"`
	Digest  string `json:"digest"`
	Error   string `json:"error,omitempty"` // why it would be refused
}

// Counted says what was counted.
type Counted string

// What counts may be of.
const (
	NotCounted Counted = ""
	Instance   Counted = "instance" // this instance of the container, by its shim
	Since      Counted = "since"    // records from the time on that was asked for, read in the stream
	Newest     Counted = "newest"   // the newest part of the stream, read because the shim does not answer
)

// Record is a record of a stream. As JSON it is what the stream has (docs/events.md).
type Record struct{ record.Record }

// MarshalJSON implements json.Marshaler.
func (r *Record) MarshalJSON() ([]byte, error) { return r.Append(nil), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (r *Record) UnmarshalJSON(data []byte) error {
	parsed, err := record.Parse(data)
	if err != nil {
		return err
	}
	r.Record = *parsed
	return nil
}

// Silent is whether the shim of the pod did not answer, so that what is told of its containers is old.
func (p *Pod) Silent() bool { return p.State != Running }

// Denied is how many calls were denied or killed; false: nobody counted.
func (s *Stream) Denied() (uint64, bool) {
	if s == nil || s.Counts == nil {
		return 0, false
	}
	return s.Counts.Denied(), true
}

// Verdicts are the calls of each verdict.
func (s *Stream) Verdicts() map[audit.Verdict]uint64 {
	sums := map[audit.Verdict]uint64{}
	if s != nil && s.Counts != nil {
		for _, c := range s.Counts.Calls {
			sums[c.Verdict] += c.Count
		}
	}
	return sums
}
