// SPDX-License-Identifier: Apache-2.0

package plan

// Bits of the plan's field mask.
const (
	hasCaps = 1 << iota
	hasNoNewPrivs
	hasOOMScoreAdj
	allBits = hasCaps | hasNoNewPrivs | hasOOMScoreAdj
)

// Append appends p as a frame. It refuses what [DecodePlan] would refuse.
func (p *Plan) Append(dst []byte) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = AppendHeader(dst, TypePlan, 0)
	dst = appendU32(dst, uint32(len(p.Filter)/InsnSize))
	dst = append(dst, p.Filter...)
	dst = appendU32(dst, p.FilterFlags)
	var bits byte
	if p.Caps != nil {
		bits |= hasCaps
	}
	if p.NoNewPrivs {
		bits |= hasNoNewPrivs
	}
	if p.OOMScoreAdj != nil {
		bits |= hasOOMScoreAdj
	}
	dst = append(dst, bits)
	if p.Caps != nil {
		dst = appendU64(dst, p.Caps.Bounding)
		dst = appendU64(dst, p.Caps.Inheritable)
		dst = appendU64(dst, p.Caps.Ambient)
		dst = appendU64(dst, p.Caps.Effective)
	}
	if p.OOMScoreAdj != nil {
		dst = appendU32(dst, uint32(int32(*p.OOMScoreAdj)))
	}
	dst = append(dst, byte(len(p.Rlimits)))
	for _, r := range p.Rlimits {
		dst = appendU32(dst, r.Resource)
		dst = appendU64(dst, r.Cur)
		dst = appendU64(dst, r.Max)
	}
	dst = appendU32(dst, uint32(len(p.Env)))
	for _, v := range p.Env {
		dst = appendU32(dst, uint32(v.Index))
		dst = appendU32(dst, uint32(len(v.Var)))
		dst = append(dst, v.Var...)
	}
	putU32(dst[start+4:], uint32(len(dst)-start-HeaderSize))
	return dst, nil
}

// check says whether p is within the bounds of the wire form.
func (p *Plan) check() error {
	if n := len(p.Filter); n == 0 || n%InsnSize != 0 || n > MaxInsns*InsnSize {
		return ErrSize
	}
	if p.FilterFlags&^allFlags != 0 {
		return ErrValue
	}
	if a := p.OOMScoreAdj; a != nil && (*a < -MaxOOMAdj || *a > MaxOOMAdj) {
		return ErrValue
	}
	if len(p.Rlimits) > MaxRlimits || len(p.Env) > MaxEnv {
		return ErrSize
	}
	for _, r := range p.Rlimits {
		if r.Resource >= MaxRlimits || r.Cur > r.Max {
			return ErrValue
		}
	}
	total, last := 0, -1
	for _, v := range p.Env {
		total += len(v.Var)
		if total > MaxEnvSize {
			return ErrSize
		}
		if v.Index <= last || v.Index > 1<<30 || !validVar(v.Var) {
			return ErrValue
		}
		last = v.Index
	}
	return nil
}

// validVar says whether v is NAME=VALUE with a name and without NUL bytes.
func validVar(v string) bool {
	name := -1
	for i := range len(v) {
		switch {
		case v[i] == 0:
			return false
		case v[i] == '=' && name < 0:
			name = i
		}
	}
	return name > 0
}

// DecodePlan decodes the body of a TypePlan frame. The result shares no memory with body.
func DecodePlan(body []byte) (*Plan, error) {
	d := decoder{b: body}
	p := &Plan{}
	p.Filter = append(p.Filter, d.bytes(int(d.count(MaxInsns))*InsnSize)...)
	p.FilterFlags = d.u32()
	bits := d.u8()
	if bits&^allBits != 0 {
		d.fail(ErrValue)
	}
	if bits&hasCaps != 0 {
		p.Caps = &Caps{Bounding: d.u64(), Inheritable: d.u64(), Ambient: d.u64(), Effective: d.u64()}
	}
	p.NoNewPrivs = bits&hasNoNewPrivs != 0
	if bits&hasOOMScoreAdj != 0 {
		adj := int(int32(d.u32()))
		p.OOMScoreAdj = &adj
	}
	for n := int(d.u8()); n > 0 && d.err == nil; n-- {
		p.Rlimits = append(p.Rlimits, Rlimit{Resource: d.u32(), Cur: d.u64(), Max: d.u64()})
	}
	for n := d.count(MaxEnv); n > 0 && d.err == nil; n-- {
		i := d.count(1 << 30)
		p.Env = append(p.Env, EnvVar{Index: int(i), Var: string(d.bytes(int(d.count(MaxEnvSize))))})
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return p, p.check()
}

// Stage says what the launcher was doing when it failed.
type Stage uint8

// The stages. The first four are the workload's own fault and have the same text as runc's.
const (
	StageNotFound   Stage = 1  // no such executable in PATH; no errno
	StageStat       Stage = 2  // stat(2) of the executable
	StageExecutable Stage = 3  // it is a directory, or not executable by this user
	StageRelative   Stage = 4  // found in a directory of PATH that is not absolute; no errno
	StagePlan       Stage = 5  // the plan that came was not one
	StageCaps       Stage = 6  // lowering the capability sets
	StageNoNewPrivs Stage = 7  // prctl(PR_SET_NO_NEW_PRIVS)
	StageRlimit     Stage = 8  // setrlimit(2)
	StageOOMScore   Stage = 9  // writing oom_score_adj
	StageFilter     Stage = 10 // seccomp(2)
	StageExec       Stage = 11 // execve(2), refused by a policy or because the supervisor is gone
	stageEnd        Stage = 12
)

var stageNames = [stageEnd]string{
	StageNotFound:   "executable file not found in $PATH",
	StageStat:       "stat",
	StageExecutable: "check the executable",
	StageRelative:   "cannot run executable found relative to current directory",
	StagePlan:       "read the plan",
	StageCaps:       "lower capabilities",
	StageNoNewPrivs: "set no_new_privs",
	StageRlimit:     "set resource limits",
	StageOOMScore:   "set oom_score_adj",
	StageFilter:     "load the seccomp filter",
	StageExec:       "exec",
}

// String returns what the stage does, or "unknown stage".
func (s Stage) String() string {
	if s == 0 || s >= stageEnd {
		return "unknown stage"
	}
	return stageNames[s]
}

// Failure is the launcher's last message if it does not become the workload.
type Failure struct {
	Stage Stage
	Errno uint16 // of <errno.h>; 0 where the stage has none
	Arg   string // what it was done to: the executable's name; cut to MaxArg bytes
}

// Append appends f as a frame, its Arg cut to MaxArg bytes.
func (f Failure) Append(dst []byte) []byte {
	arg := f.Arg[:min(len(f.Arg), MaxArg)]
	dst = AppendHeader(dst, TypeFailure, 7+len(arg))
	dst = append(dst, byte(f.Stage), byte(f.Errno), byte(f.Errno>>8))
	dst = appendU32(dst, uint32(len(arg)))
	return append(dst, arg...)
}

// DecodeFailure decodes the body of a TypeFailure frame.
func DecodeFailure(body []byte) (Failure, error) {
	d := decoder{b: body}
	f := Failure{Stage: Stage(d.u8()), Errno: uint16(d.u8())}
	f.Errno |= uint16(d.u8()) << 8
	f.Arg = string(d.bytes(int(d.count(MaxArg))))
	if err := d.end(); err != nil {
		return Failure{}, err
	}
	if f.Stage == 0 || f.Stage >= stageEnd {
		return Failure{}, ErrValue
	}
	return f, nil
}

// decoder reads a body; after the first error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err, d.b = err, nil
	}
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail(ErrTruncated)
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); len(b) == 4 {
		return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	}
	return 0
}

func (d *decoder) u64() uint64 {
	lo := d.u32()
	return uint64(lo) | uint64(d.u32())<<32
}

// count reads a number of things, at most limit.
func (d *decoder) count(limit uint32) uint32 {
	n := d.u32()
	if n > limit {
		d.fail(ErrSize)
		return 0
	}
	return n
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		return ErrTrailing
	}
	return d.err
}

func appendU32(dst []byte, v uint32) []byte {
	return append(dst, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func appendU64(dst []byte, v uint64) []byte {
	return appendU32(appendU32(dst, uint32(v)), uint32(v>>32))
}

func putU32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}
