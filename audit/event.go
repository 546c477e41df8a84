// SPDX-License-Identifier: Apache-2.0

// Package audit is the form of an audit event: its kinds, its fields, their vocabulary, and the encoder
// that turns an event into one line of JSON. Where events are kept is package audit/stream; how they are
// read back is audit/record and audit/query.
//
// The package is linked into the helper inside containers, so it uses no reflection, no fmt, no
// encoding/json and no crypto.
package audit

import (
	"strconv"
	"time"
)

// Version is the value of field "v". Within a version fields are only added; a field never changes its
// meaning, its form or its place relative to the fields around it.
const Version = 1

// Bounds of what one event holds. Strings are cut to their bound by the encoder, at a character's
// boundary; counts above theirs are refused by Validate.
const (
	MaxName   = 256       // bytes of a name: identities, comm, rule ids, argument names, …
	MaxValue  = 4096      // bytes of an argument's value, exe, detail; of all words of an argv together
	MaxArgs   = 8         // arguments of a system call
	MaxLimits = 32        // limits in a receipt
	MaxLaps   = 8         // laps of a start
	MaxRecord = 512 << 10 // bytes of any encoded record, its newline included
)

// Ticket is a record's place in the line of what waits for the disk.
type Ticket struct {
	Number uint64 // of what was written
	Cuts   uint64 // how often the stream had been cut back by then
}

// Identity says whose stream it is. It stands in each of the stream's records. All fields come from
// the pod's metadata, so they are as hostile as any other string.
type Identity struct {
	Node          string
	Namespace     string
	Pod           string
	PodUID        string
	Container     string // name in the pod
	ContainerID   string // of this instance; a restarted container continues the stream with a new one
	Profile       string
	ProfileDigest string
}

// Event is one thing that happened, or was found. Kind says which one of the payloads is set.
type Event struct {
	Time time.Time // when it happened; of a folded event, when the first one did
	Exec string    // id of the exec session it belongs to; empty: the container's own process tree
	Kind Kind

	Receipt   *Receipt   // KindStart
	Timing    *Timing    // KindTiming
	Syscall   *Syscall   // KindSyscall
	ExecStart *ExecStart // KindExec
	Limit     *Limit     // KindLimit
	OOM       *OOM       // KindOOM
	Loss      *Loss      // KindLoss
	Exit      *Exit      // KindExit
	End       *End       // KindEnd
}

// Syscall is a system call that was audited, denied or killed. PID, TID, PPID, UID and GID are as the
// supervisor sees them: host numbers when it runs on the host, the guest's when it runs in a VM.
type Syscall struct {
	PID, TID, PPID uint32
	UID, GID       uint32
	Comm           string // task name; the workload can set it to anything
	Exe            string // path of the program, in the container
	Syscall        string // name, such as "openat"; "syscall_<nr>" if the number has none
	Nr             int32
	Arch           string // OCI name, such as "SCMP_ARCH_X86_64"
	Args           []Arg  // at most MaxArgs
	Class          string // audit class that asked for it; empty for a denial outside all classes
	Verdict        Verdict
	Errno          string // name of the error that the call got, such as "EPERM"; empty if none
	RuleID         string // rule that decided; empty when no rule but a default did
	Origin         string // profile whose decision it was, or "pod" for the pod's own seccomp profile

	// Count above 1 makes it a folded event: Count equal calls between Event.Time and Until, of which
	// the fields show the first. 0 means 1.
	Count uint64
	Until time.Time
}

// Arg is one decoded argument.
type Arg struct {
	Name      string
	Value     string // plain text of a path; rendered text of flags, numbers, lists and addresses
	Evidence  Evidence
	Truncated bool // Value is only the beginning; the encoder sets it too when it has to cut
}

// IsPath tells whether the value is a path, as the caller showed it: it need not be absolute, nor be what the kernel found.
func (a *Arg) IsPath() bool { return a.Evidence != EvidenceRegister && PathArg(a.Name) }

// PathArg tells whether an argument of this name is a path.
func PathArg(name string) bool {
	switch name {
	case "path", "from", "to", "target", "source", "new_root", "put_old", "special":
		return true
	}
	return false
}

// IsAddress tells whether the value is the address of a socket, as the caller showed it.
func (a *Arg) IsAddress() bool { return a.Evidence != EvidenceRegister && a.Name == "addr" }

// Receipt is what was found in force, read back from the kernel before the workload's first instruction.
type Receipt struct {
	Version      string // of Metsuke
	Kernel       string // release of the kernel that enforces the filter
	Placement    string // of the supervisor: "host" or "guest"
	Delegate     string // runtime type of the delegate
	Image        string // reference of the container's image, as the pod names it
	PID          uint32 // of the container's first process
	SeccompMode  int    // Seccomp: of /proc/PID/status; 2 is filter
	Filters      int    // Seccomp_filters: of /proc/PID/status
	FilterDigest string // SHA-256 of the filter program, hex
	NoNewPrivs   bool   // NoNewPrivs: of /proc/PID/status
	OnLoss       string // what happens when the stream cannot be kept: "kill" or "continue"
	Durability   string // when a record is safe from a node that goes down: "synced" or "batched"
	// FlushInterval is how long a record may be not on the disk, with "batched".
	FlushInterval time.Duration
	Limits        []ReceiptLimit
}

// ReceiptLimit is one limit: what the profile asked and what the kernel has in force.
type ReceiptLimit struct {
	Name       string // as in a profile: "memory", "pids", …
	Asked      string
	Found      string // empty: the kernel has none
	BestEffort bool   // the profile allows it to be absent
}

// Timing is how long a start took that succeeded. A receipt cannot have it: it is written before the start's last laps have ended. What
// it has of the receipt's is for those who read it alone.
type Timing struct {
	Began       time.Time // when the request to create the container came
	SandboxID   string    // the runtime's id of the pod's sandbox; of the container itself where the runtime knows no pods
	Delegate    string    // as in the receipt, like the next two
	Placement   string
	Image       string
	Traceparent string // span of the caller who had the container created, as W3C Trace Context has it; empty: none was told
	Laps        []Lap  // in their order; at most MaxLaps
}

// Lap is one stay in a phase of a start.
type Lap struct {
	Phase    string
	Offset   time.Duration // of its begin, from Timing.Began
	Duration time.Duration
}

// ExecStart is the begin of an exec session (kubectl exec, a probe) whose filter was found in force.
type ExecStart struct {
	PID         uint32
	UID, GID    uint32
	Terminal    bool
	SeccompMode int
	Filters     int
	NoNewPrivs  bool
	Argv        []string // as requested; MaxValue bytes of it
	Truncated   bool     // Argv is only the beginning; the encoder sets it too when it has to cut
}

// Limit is a request for resources that was lowered to a ceiling.
type Limit struct {
	Operation string // "create" or "update"
	Resource  string // as in a profile
	Requested string
	Ceiling   string
	Applied   string
}

// OOM is a kill by the kernel's memory controller.
type OOM struct {
	Count       uint64 // processes killed since the last such event; 0: not known
	MemoryLimit uint64 // bytes that were allowed; 0: not known
}

// Loss says that events are missing here, or that they may be.
type Loss struct {
	Reason string // one of LossReasons
	Count  uint64 // events that are missing; 0: none, or not known, as Reason says
	Bytes  uint64 // bytes that were cut from the end of the stream
	OnLoss string // what was done with the container: "kill" or "continue"; empty: nothing was left to do
	Detail string // the error, for people

	// Of a LossNode: the time of which records may be missing, and what bounds that. Zero in other losses.
	From          time.Time     // of the last record that is there
	Until         time.Time     // when the node was up again
	FlushInterval time.Duration // before the node went down of which records may be missing; 0: none that was acknowledged
}

// Exit is the end of the container's first process, or of an exec session's.
type Exit struct {
	Status uint32 // exit status; 128 + number for a signal
	Signal string // name of the signal that ended it, such as "SIGKILL"; empty if none
	Cause  string // one of ExitCauses; empty: its own doing
}

// End is what an instance of a container leaves when it is deleted: totals of its records, this one not counted.
type End struct {
	Records uint64
	Bytes   uint64 // of these records
	Calls   uint64 // system calls that they tell of; a folded record tells of many
	Denied  uint64 // of these calls, those that were denied or killed
	Losses  uint64 // records of kind loss
	Missing uint64 // events that these say are missing, as far as they know
}

// InvalidError is what Validate returns. It means a mistake in the program that made the event, never
// something that a workload can bring about.
type InvalidError struct {
	Kind    Kind
	Problem string
}

// Error implements error.
func (e *InvalidError) Error() string {
	return "audit event of kind " + strconv.Quote(string(e.Kind)) + ": " + e.Problem
}

// Validate checks that Kind is known, that its payload and no other is set, and that counts are within
// their bounds. Errors are *InvalidError.
func (e *Event) Validate() error {
	var own bool
	switch e.Kind {
	case KindStart:
		own = e.Receipt != nil
	case KindTiming:
		own = e.Timing != nil
	case KindSyscall:
		own = e.Syscall != nil
	case KindExec:
		own = e.ExecStart != nil
	case KindLimit:
		own = e.Limit != nil
	case KindOOM:
		own = e.OOM != nil
	case KindLoss:
		own = e.Loss != nil
	case KindExit:
		own = e.Exit != nil
	case KindEnd:
		own = e.End != nil
	default:
		return &InvalidError{e.Kind, "not a known kind"}
	}
	payloads := 0
	for _, set := range [...]bool{
		e.Receipt != nil, e.Timing != nil, e.Syscall != nil, e.ExecStart != nil, e.Limit != nil, e.OOM != nil,
		e.Loss != nil, e.Exit != nil, e.End != nil,
	} {
		if set {
			payloads++
		}
	}
	switch {
	case !own || payloads != 1:
		return &InvalidError{e.Kind, "needs its own payload and no other"}
	case e.Syscall != nil && len(e.Syscall.Args) > MaxArgs:
		return &InvalidError{e.Kind, "more than " + strconv.Itoa(MaxArgs) + " arguments"}
	case e.Receipt != nil && len(e.Receipt.Limits) > MaxLimits:
		return &InvalidError{e.Kind, "more than " + strconv.Itoa(MaxLimits) + " limits"}
	case e.Timing != nil && len(e.Timing.Laps) > MaxLaps:
		return &InvalidError{e.Kind, "more than " + strconv.Itoa(MaxLaps) + " laps"}
	}
	return nil
}
