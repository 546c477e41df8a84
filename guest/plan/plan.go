// SPDX-License-Identifier: Apache-2.0

// Package plan is the wire form that the supervisor and the launcher speak over the rendezvous
// socket: who the launcher is, what it has to do before it becomes the workload, the listener that
// it hands over, and what went wrong if it could not.
//
//	launcher                      supervisor
//	Hello{token}            ->
//	                        <-    Plan{filter, capabilities, environment, ...}
//	Listener + SCM_RIGHTS   ->
//	                        <-    Armed
//	end of file (exec'd)    ->    or Failure{stage, errno, arg}, which may also come earlier
//
// Every message is one frame: a header of [HeaderSize] bytes and a body whose size the header
// states and the message's type bounds. Encoding is canonical (one byte sequence per value) and
// decoding is strict: a wrong version, an unknown type, a set reserved bit, a length out of bounds
// or a trailing byte is an error. Numbers are little-endian.
//
// The package imports nothing: it is linked into the launcher, whose size and start-up time every
// container pays.
package plan

// Version is the version of the wire form. Both ends come from one build of Metsuke, so a
// different version is refused, never translated.
const Version = 2

// HeaderSize is the number of bytes before each body: "MT", version, type, body length (uint32).
const HeaderSize = 8

// Bounds of what a message may carry.
const (
	MaxToken   = 64        // bytes of a token
	MaxInsns   = 4096      // BPF_MAXINSNS of <linux/filter.h>
	InsnSize   = 8         // sizeof(struct sock_filter)
	MaxEnv     = 1024      // variables put back
	MaxEnvSize = 256 << 10 // bytes of all of them together
	MaxRlimits = 16        // RLIM_NLIMITS of <linux/resource.h>
	MaxArg     = 4096      // bytes of Failure.Arg: PATH_MAX
	MaxOOMAdj  = 1000      // OOM_SCORE_ADJ_MAX of <linux/oom.h>; the least is its negative
	maxPlan    = MaxInsns*InsnSize + MaxEnvSize + 8*MaxEnv + MaxRlimits*20 + 64
	maxFailure = 7 + MaxArg
)

// MaxWait is how long, in seconds, a launcher waits for any one answer before it gives up. It is
// an outer bound: the supervisor's own deadline is shorter. It stays under two minutes because the
// Go runtime forces a collection then, and the launcher's filtered thread cannot take part in one.
const MaxWait = 100

// The seccomp filter flags that a plan may name (<linux/seccomp.h>). NEW_LISTENER and
// WAIT_KILLABLE_RECV are the launcher's own; TSYNC would filter the thread that reports.
const (
	FlagLog       = 1 << 1 // SECCOMP_FILTER_FLAG_LOG
	FlagSpecAllow = 1 << 2 // SECCOMP_FILTER_FLAG_SPEC_ALLOW
	allFlags      = FlagLog | FlagSpecAllow
)

// Error is a constant error of this package.
type Error string

func (e Error) Error() string { return "launch plan: " + string(e) }

// The errors of encoding and decoding.
const (
	ErrMagic     Error = "not a frame of this protocol"
	ErrVersion   Error = "peer speaks another version; shim and metsuke-guest must be of one build"
	ErrType      Error = "unknown or unexpected type of frame"
	ErrSize      Error = "size out of bounds"
	ErrTruncated Error = "body ends early"
	ErrTrailing  Error = "bytes after the end of the body"
	ErrValue     Error = "value out of range"
)

// Type is the type of a frame.
type Type uint8

// The types of frames.
const (
	TypeHello    Type = 1 // launcher to supervisor
	TypePlan     Type = 2 // supervisor to launcher
	TypeListener Type = 3 // launcher to supervisor, with one descriptor attached
	TypeArmed    Type = 4 // supervisor to launcher
	TypeFailure  Type = 5 // launcher to supervisor

	TypeListenerAt Type = 6 // launcher to supervisor, instead of TypeListener
)

// bounds gives the least and the greatest body of each type.
func (t Type) bounds() (least, most int, ok bool) {
	switch t {
	case TypeHello:
		return 1, MaxToken, true
	case TypePlan:
		return InsnSize, maxPlan, true
	case TypeListener, TypeArmed:
		return 0, 0, true
	case TypeListenerAt:
		return 4, 4, true
	case TypeFailure:
		return 7, maxFailure, true
	}
	return 0, 0, false
}

// ParseHeader reads a frame's header and returns the type and the size of the body that follows.
// The size is within the type's bounds, so it may be allocated. b must hold HeaderSize bytes.
func ParseHeader(b []byte) (Type, int, error) {
	if len(b) < HeaderSize {
		return 0, 0, ErrTruncated
	}
	if b[0] != 'M' || b[1] != 'T' {
		return 0, 0, ErrMagic
	}
	if b[2] != Version {
		return 0, 0, ErrVersion
	}
	t := Type(b[3])
	least, most, ok := t.bounds()
	if !ok {
		return 0, 0, ErrType
	}
	n := uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24
	if n < uint32(least) || n > uint32(most) {
		return 0, 0, ErrSize
	}
	return t, int(n), nil
}

// AppendHeader appends a header to dst. It is a whole frame for TypeListener and TypeArmed.
func AppendHeader(dst []byte, t Type, size int) []byte {
	return appendU32(append(dst, 'M', 'T', Version, byte(t)), uint32(size))
}

// AppendListenerAt appends a TypeListenerAt frame: the number that the listener has in the launcher, for a supervisor that
// fetches it from there.
func AppendListenerAt(dst []byte, fd int) []byte {
	return appendU32(AppendHeader(dst, TypeListenerAt, 4), uint32(fd))
}

// DecodeListenerAt decodes the body of a TypeListenerAt frame.
func DecodeListenerAt(body []byte) (fd int, err error) {
	if len(body) != 4 {
		return 0, ErrSize
	}
	n := uint32(body[0]) | uint32(body[1])<<8 | uint32(body[2])<<16 | uint32(body[3])<<24
	if n > 1<<30 { // more than a process has (fs.nr_open)
		return 0, ErrValue
	}
	return int(n), nil
}

// Hello is the launcher's first message.
type Hello struct {
	Token string // printable ASCII, 1 to MaxToken bytes
}

// Append appends h as a frame.
func (h Hello) Append(dst []byte) ([]byte, error) {
	if err := checkToken(h.Token); err != nil {
		return nil, err
	}
	return append(AppendHeader(dst, TypeHello, len(h.Token)), h.Token...), nil
}

// DecodeHello decodes the body of a TypeHello frame.
func DecodeHello(body []byte) (Hello, error) {
	h := Hello{Token: string(body)}
	return h, checkToken(h.Token)
}

func checkToken(t string) error {
	if len(t) == 0 || len(t) > MaxToken {
		return ErrSize
	}
	for i := range len(t) {
		if t[i] <= ' ' || t[i] > '~' {
			return ErrValue
		}
	}
	return nil
}

// Plan is what the launcher does before it becomes the workload.
type Plan struct {
	// Filter is the seccomp program: struct sock_filter in the machine's byte order, InsnSize
	// bytes each, 1 to MaxInsns of them. It must notify execve, or nothing gates the workload.
	Filter []byte
	// FilterFlags are FlagLog and FlagSpecAllow, as the pod's own profile asks.
	FilterFlags uint32
	// Caps, if set, are the sets to end with, where they were widened for the launcher's work.
	Caps *Caps
	// Env are the variables to put back into the environment, in ascending order of Index.
	Env []EnvVar
	// NoNewPrivs sets no_new_privs, for delegates that lose it on the way to an exec.
	NoNewPrivs bool
	// Rlimits are set before the filter is loaded, for delegates that lose them.
	Rlimits []Rlimit
	// OOMScoreAdj, if set, is written to /proc/self/oom_score_adj; -1000 to 1000.
	OOMScoreAdj *int
}

// Caps are capability sets, bit n being capability n of <linux/capability.h>. The launcher only
// ever lowers its sets to these; permitted and effective follow from them at execve.
type Caps struct {
	Bounding, Inheritable, Ambient uint64
	// Effective is what the executable is looked up and execed with, so that what the launcher got for its own work
	// opens no file to the workload. Until then it has CAP_SYS_ADMIN beside it, for the filter.
	Effective uint64
}

// EnvVar is a variable that the launcher puts back.
type EnvVar struct {
	Index int    // where it stands in the workload's environment; past the end means last
	Var   string // NAME=VALUE
}

// Rlimit is one setrlimit(2).
type Rlimit struct {
	Resource uint32 // RLIMIT_* number of <linux/resource.h>
	Cur, Max uint64
}

// AppendInsn appends one struct sock_filter to a filter in the form that Plan.Filter has.
func AppendInsn(dst []byte, code uint16, jt, jf uint8, k uint32) []byte {
	// Every architecture that Metsuke runs on (amd64, arm64) is little-endian.
	return appendU32(append(dst, byte(code), byte(code>>8), jt, jf), k)
}
