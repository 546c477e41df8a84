// SPDX-License-Identifier: Apache-2.0

// Package channel is the wire form that the shim on the host and the resident, the supervisor's process inside a
// container, speak over the resident's stdin and stdout.
//
//	shim (host)                     resident (guest)
//	Start{secret, program, ...}  ->
//	                             <-  Ready, or Fatal
//	Expect{launch}               ->
//	                             <-  Found: the launcher stands still under its filter
//	Arm                          ->
//	                             <-  Armed: it is the workload; or Failed, which may also come instead of Found
//	                             <-  Event, Event, Fold, ...
//	Ack                          ->
//	Control                      ->
//	                             <-  Report
//	Stop, or end of file         ->
//	                             <-  end of file
//
// Rules that both ends hold, and the host enforces:
//   - Each Expect ends with exactly one Armed or Failed. Cancel asks for the end; the answer is Failed, unless Armed or
//     Failed was sent already. No message names a launch after its end, or one that was not expected.
//   - Found comes once a launch, Armed only after Arm.
//   - Events are numbered from 1 without gaps, across all launches of the resident.
//   - The sum of len(Event.Record) over the events that are not acknowledged never exceeds Start.Credit, which is at
//     least MaxRecord. An event that does not fit waits for an Ack.
//   - Every denial that Event.Folded stands for was counted by a Fold before. Folds are coalesced by the sender:
//     the host reads no more than a few hundred frames that are not events a second.
//   - Each Control gets one Report.
//   - Fatal is the last frame.
//
// Every message is one frame: a header of HeaderSize bytes, a body whose size the header states and the message's type
// bounds, and a MAC of MACSize bytes over direction, number of the frame, header and body, keyed by the secret that
// Start carries. So neither end believes what somebody else wrote into its pipe, what was said before, or what the other
// end was told. Whatever does not verify ends the channel; nothing is skipped. Encoding is canonical (one byte sequence a
// value) and decoding is strict, as in guest/plan. Numbers are little-endian.
//
// The package is linked into the helper inside containers: standard library only, no reflection.
package channel

// Version is the version of the wire form. Both ends come from one build of Metsuke, so a different version is refused,
// never translated.
const Version = 1

// What both ends agree on.
const (
	SecretSize    = 32 // bytes of the secret
	ResidentTasks = 48 // tasks of the resident at most; the container's pids limit is raised by it
	MaxSessions   = 32 // launches that one resident supervises at once, those that are expected included
)

// Bounds of what a message may carry.
const (
	MaxProgram  = 1 << 20   // bytes of Start.Program, as package seccomp bounds them
	MaxPlan     = 384 << 10 // bytes of Expect.Plan; more than package plan makes
	MinRecord   = 128       // bytes of Event.Record, less than any has, so that credit bounds their number as well
	MaxRecord   = 512 << 10 // bytes of Event.Record, as package audit bounds them
	MaxCredit   = 64 << 20  // bytes of Start.Credit; the least is MaxRecord
	MaxName     = 256       // bytes of the id of an exec session, a version, a release
	MaxToken    = 64        // bytes of a token, as in package plan
	MaxFile     = 64        // bytes of a cgroup file's name
	MaxSettings = 64        // settings, values, or watched files of one message
	MaxText     = 4096      // bytes of a setting's or file's value, an argument, a reason
)

// Direction says who sends.
type Direction uint8

// The directions.
const (
	HostToGuest Direction = 1
	GuestToHost Direction = 2
)

// Message is one of the messages below, by value. Texts for people and what cgroup files hold are cut to their bound
// when they are sent, and bytes that are not printable ASCII, newline or tab become '?'; everything else that is out of
// bounds is refused.
type Message interface {
	kind() kind
	check() error             // whether it is within the bounds, but for texts
	append(dst []byte) []byte // the body
}

// Check returns the error with which a Sender would refuse a message, nil if it would not.
func Check(m Message) error { return m.check() }

// Start is the host's first frame: what the resident enforces, and for whom.
type Start struct {
	Secret   [SecretSize]byte
	Program  []byte    // seccomp.Program.MarshalBinary
	Ordered  bool      // an audited call goes on when its event is acknowledged, not when it is sent
	Credit   uint32    // bytes of records that may be unacknowledged; MaxRecord to MaxCredit
	Continue bool      // the profile's onLoss is continue
	Cgroup   bool      // /.metsuke/cgroup is there; Settings are applied through it
	Settings []Setting // to put in force before Ready, in this order
	Watch    []string  // cgroup files to read back for Found and Report
}

// Setting is one line to write to a file of the container's cgroup (cgroup v2).
type Setting struct {
	File  string // name: lower-case letters, digits, '.', '_' and '-'
	Value string // printable ASCII without the newline; may be empty
}

// Expect announces a launch. Its launcher presents Token and gets Plan.
type Expect struct {
	ID    uint64 // given by the host, not 0; never used again
	Exec  string // id of the exec session; empty for the container's own process
	Token string
	Plan  []byte // the frame that plan.Plan.Append makes
}

// Cancel gives a launch up that is not armed: its launcher ends without running the workload.
type Cancel struct{ ID uint64 }

// Arm lets a launch that was found go on: its listener is to be served and its launcher told.
type Arm struct{ ID uint64 }

// Ack says that all events up to Seq are in the stream, or counted as lost under onLoss continue.
type Ack struct{ Seq uint64 }

// Control asks for limits to be put in force, and to be read back.
type Control struct {
	ID       uint64 // given by the host; never used again
	Settings []Setting
	Helper   bool // and whether a process that the delegate adds to the container would find the helper
}

// Stop asks for the normal end: all listeners are closed, what is folded is sent, stdout is closed.
type Stop struct{}

// Ready says that the resident stands: its socket is there, its directory sealed, Start.Settings in force as
// far as the kernel takes them.
type Ready struct {
	Version string // of Metsuke; at most MaxName bytes, as is Kernel
	Kernel  string // release
	Tasks   uint32 // tasks that the resident has now; at most ResidentTasks
}

// Value is a file of the container's cgroup as it was read back: each that is watched, and each other whose last setting the
// kernel did not take.
type Value struct {
	File    string
	Text    string // what the file holds, its last newline cut; empty if there is a Problem
	Problem string // why there is no Text, or why the last setting is not in force; for people
}

// Found says that a launcher stands still under its filter, and what the kernel says of it (/proc/<pid>/status).
type Found struct {
	ID         uint64
	PID        uint32 // in the resident's pid namespace
	UID, GID   uint32 // real ones
	Seccomp    uint32 // Seccomp:
	Filters    uint32 // Seccomp_filters:
	NoNewPrivs bool
	Values     []Value
}

// Armed says that a launcher has become the workload.
type Armed struct{ ID uint64 }

// Failed says that a launch is over and its workload has not run.
type Failed struct {
	ID    uint64
	Stage uint8  // a plan.Stage, if it is the launcher's own account; 0: Text says it
	Errno uint32 // of <errno.h>; 0: none
	Arg   string // what it was done to: any bytes; cut to MaxText
	Text  string // for people
}

// Event is one record for the stream.
type Event struct {
	Seq    uint64 // from 1, without gaps
	Folded uint64 // denials that the record stands for and that were counted by a Fold before
	Record []byte // audit.Event.AppendJSON of kind syscall or loss, with a zero identity and number 1
}

// Fold counts N more denials that were answered and have no record yet; N is not 0.
type Fold struct{ N uint64 }

// Report answers a Control.
type Report struct {
	ID      uint64
	Values  []Value
	Problem string // why nothing can be set, or the helper would not be found; empty: neither
}

// KillInit asks for the container's end: a rule kills its first process, which takes no signal from inside.
type KillInit struct{}

// Fatal is the last frame of a resident that gives up.
type Fatal struct{ Text string }
