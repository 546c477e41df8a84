// SPDX-License-Identifier: Apache-2.0

// Package seccomp compiles what a container may call into one seccomp filter and the table that says what a
// notification of that filter means.
//
// A Policy has three parts, each decided on its own and never merged: the pod's own OCI profile, in force as runc
// with libseccomp would have it; the layers, one per profile of ours (the node's floor, the pod's profile and what
// it extends); and the audit rules. Of the decisions the strictest wins, so a layer can only tighten.
//
// Compile turns a policy into a Program. Its Filter goes into the kernel and answers at once whatever needs no
// event; everything else is a notification, for which Decide gives the verdict, from the call's number, ABI and
// registers alone. Both come from one decision graph, so they cannot disagree:
//
//	pod: kill process > layer: kill > pod: kill thread > pod: trap > pod: errno > layer: deny > audit > pod: log > allow
//
// The package is pure: no system call, no cgo, no global state. A Program is immutable and safe for concurrent use.
package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// Data is struct seccomp_data of <linux/seccomp.h>: what a filter sees of a call.
type Data struct {
	Nr   int32
	Arch Arch // never ArchX32: see ABI
	IP   uint64
	Args [6]uint64
}

// ABI returns the ABI of the call, which for x32 is not what the Arch field says.
func (d *Data) ABI() Arch {
	if d.Arch == ArchAMD64 && isX32(uint32(d.Nr)) {
		return ArchX32
	}
	return d.Arch
}

// isX32 says that a number reported for ArchAMD64 is an x32 one. Number -1 is not: a tracer sets it to skip a call.
func isX32(nr uint32) bool { return nr >= x32Bit && nr != ^uint32(0) }

// Op compares an argument, as an unsigned 64-bit number, with a value.
type Op string

// The operators of the OCI runtime specification.
const (
	OpEqual        Op = "eq"
	OpNotEqual     Op = "ne"
	OpLess         Op = "lt"
	OpLessEqual    Op = "le"
	OpGreater      Op = "gt"
	OpGreaterEqual Op = "ge"
	OpMaskedEqual  Op = "masked_eq"
)

// Cond is one condition on a register. An argument that the kernel reads as a 32-bit integer (a file descriptor,
// flags, an id) is compared by its lower half: what the caller leaves in the upper half does not evade a rule.
type Cond struct {
	Index uint8 // of the argument, 0 to 5
	Op    Op
	Value uint64
	Mask  uint64 // for masked_eq only: (argument & Mask) == Value
}

// Rule names calls; all its conditions must hold (none: the call whatever its arguments).
type Rule struct {
	ID       string // stands in the events, as it is
	Syscalls []string
	Args     []Cond
	Errno    uint16 // what a denial returns; 0: EPERM
}

// Action is what a decision does. Stricter is larger.
type Action uint8

// The actions, in order of strictness.
const (
	ActionAllow Action = iota // the call goes on and is not seen
	ActionAudit               // the call goes on, after its event is written
	ActionDeny                // the call is not made and returns an errno
	ActionKill                // the call is not made and its process dies
)

// Layer is the policy of one profile. It decides alone: kill if a Kill rule matches, else allow if an Allow rule
// matches, else deny if a Deny rule matches, else Default. Of equally strict layers the first is named.
type Layer struct {
	Name          string
	Default       Action // ActionAllow or ActionDeny
	DefaultErrno  uint16 // 0: EPERM. A number newer than our tables gets ENOSYS instead, which libc understands
	Kill          []Rule
	Deny          []Rule
	Allow         []Rule
	Architectures []Arch // the foreign ABIs that it permits; all others it denies with ENOSYS, as rule "foreign-abi"
}

// AuditRule makes calls events, if nothing stricter decides them. The first that matches names the class.
type AuditRule struct {
	ID       string
	Class    string
	Syscalls []string
	Args     []Cond
}

// Policy is all that decides about the calls of a container. The zero policy (but for Native) allows everything.
type Policy struct {
	Native Arch // ArchAMD64 or ArchARM64
	Layers []Layer
	Audit  []AuditRule
	Pod    *specs.LinuxSeccomp // the pod's own profile; nil: unconfined
}

// Decision is what a call means.
type Decision struct {
	Action Action
	Errno  uint16 // for ActionDeny; 0 (only a pod's profile can say that): the call is not made and returns 0
	RuleID string // of a pod's profile: "default", "syscalls[3]", "bad-architecture", "newer-than-profile"
	Class  string // the audit class, if the call matches a rule of one that is audited
	Origin string // who decided: a layer's name, OriginPod, or "" for audit and allow
	Silent bool   // notified for our own bookkeeping only: no event, let it go on
}

// OriginPod is the Origin of decisions of the pod's own profile.
const OriginPod = "pod"

// The rule ids that the compiler gives.
const (
	RuleDefault    = "default"            // no rule matched
	RuleForeignABI = "foreign-abi"        // an ABI that a layer does not permit
	RuleBadArch    = "bad-architecture"   // an ABI that the pod's profile does not list
	RuleNewer      = "newer-than-profile" // runc's ENOSYS for numbers above all that the pod's profile names
)
