// SPDX-License-Identifier: Apache-2.0

// Package profile reads AgentProfiles and ProfileBindings, decides which profile a container gets, and
// resolves it with all that it extends.
//
// [Load] reads every document anew, so an edit holds for the next pod; one fault anywhere refuses all of them, with
// file, line and field. [Set.Select] names the profile of a container, [Set.Resolve] gives what it means, and
// [Resolved.WithFloor] puts the node's floor under it. The documents are described in docs/profiles.md.
//
// The package is pure: it reads only the fs.FS that it is given and keeps no state. A Set and a Resolved may be
// used by several goroutines at once as long as nobody changes them.
package profile

import (
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/seccomp"
)

// What the documents are called.
const (
	APIVersion  = "metsuke.dev/v1alpha1"
	KindProfile = "AgentProfile"
	KindBinding = "ProfileBinding"
)

// The built-in profiles.
const (
	Baseline    = "baseline"    // sound for agents
	Passthrough = "passthrough" // changes nothing, audits nothing; only a binding can give it
)

// Annotation is the pod annotation that selects a profile among those that the namespace's binding allows. Its value
// is the name of a profile.
const Annotation = "metsuke.dev/profile"

// Error is one fault in a document: file, line, column, field, what is wrong, and what was expected.
type Error = diagnostic.Error

// NNP is what becomes of the process's no_new_privs flag.
type NNP string

// The values of noNewPrivileges.
const (
	NNPTrue    NNP = "true"    // set, whatever the pod asks
	NNPInherit NNP = "inherit" // as the pod asks
)

// OnLoss is what happens to a container whose events can no longer be recorded.
type OnLoss string

// The values of onLoss.
const (
	OnLossKill     OnLoss = "kill"     // it is killed
	OnLossContinue OnLoss = "continue" // it goes on, and the gap becomes a record with its count
)

// Delivery is when an audited call goes on.
type Delivery string

// The values of delivery.
const (
	DeliveryOrdered  Delivery = "ordered"  // when its record is in the stream
	DeliveryBuffered Delivery = "buffered" // at once, while the records that are on their way are few; see docs/profiles.md
)

// Durability is when a record is safe from a node that goes down.
type Durability string

// The values of durability.
const (
	DurabilitySynced  Durability = "synced"  // when it is acknowledged: it is on the disk then
	DurabilityBatched Durability = "batched" // a flush interval later
)

// DefaultFlushInterval is the flush interval of profiles that state none.
const DefaultFlushInterval = time.Second

// Resolved is a profile with all that it extends. It shares nothing with its Set.
type Resolved struct {
	Name   string
	Digest string // sha256 of the canonical form, hex

	// Passthrough says that nothing is to be changed or audited; all that follows is empty then.
	Passthrough bool

	NoNewPrivileges NNP
	Layers          []seccomp.Layer     // the floor's and the parents' first; never merged
	Classes         []string            // audit classes, in the order of the vocabulary
	Audit           []seccomp.AuditRule // the rules of the classes, and of single calls
	Limits          cgroups.Limits
	Delivery        Delivery
	OnLoss          OnLoss
	StallTimeout    time.Duration // how long a record may stall before OnLoss; 0: as the node's configuration says
	Durability      Durability
	FlushInterval   time.Duration // how long a record may be not on the disk under DurabilityBatched; 0: DefaultFlushInterval

	// Provenance says where each part came from. It is not needed to run a container.
	Provenance Provenance
}

// Policy returns what to compile for a container whose own OCI profile is pod (nil: unconfined).
func (r *Resolved) Policy(native seccomp.Arch, pod *specs.LinuxSeccomp) seccomp.Policy {
	return seccomp.Policy{Native: native, Layers: append(slices.Clip(r.Layers), oneListener(native)), Audit: r.Audit, Pod: pod}
}

// oneListener is the layer of every profile that refuses listeners of the workload's own. The kernel does so too (EBUSY), but
// only as long as ours is open: once a supervisor has died, the workload could answer its own calls in its place, for of the
// filters that notify a call the newest is the one that is asked (kernel/seccomp.c, has_duplicate_listener, seccomp_run_filters).
func oneListener(native seccomp.Arch) seccomp.Layer {
	const setModeFilter, newListener, ebusy = 1, 8, 16 // <linux/seccomp.h>, <asm-generic/errno-base.h>
	l := seccomp.Layer{Name: "metsuke", Default: seccomp.ActionAllow, Deny: []seccomp.Rule{{
		ID: "one-listener", Syscalls: []string{"seccomp"}, Errno: ebusy,
		Args: []seccomp.Cond{
			{Index: 0, Op: seccomp.OpEqual, Value: setModeFilter},
			{Index: 1, Op: seccomp.OpMaskedEqual, Value: newListener, Mask: newListener},
			{Index: 2, Op: seccomp.OpNotEqual, Value: 0}, // libseccomp asks with NULL what the kernel knows, and wants EFAULT
		},
	}}}
	// What foreign ABIs there may be is for the other layers to say.
	switch native {
	case seccomp.ArchAMD64:
		l.Architectures = []seccomp.Arch{seccomp.Arch386, seccomp.ArchX32}
	case seccomp.ArchARM64:
		l.Architectures = []seccomp.Arch{seccomp.ArchARM}
	}
	return l
}

// A document as it was written, checked on its own.
type document struct {
	name string
	file string
	at   map[string]place // of the fields that later checks speak about, by path
}

type place struct{ line, column int }

// agentProfile is one AgentProfile.
type agentProfile struct {
	document
	builtin     bool
	extends     []string
	replace     bool
	passthrough bool
	description string
	nnp         NNP            // "": not stated
	layer       *seccomp.Layer // nil: no seccomp stated
	reasons     map[ruleKey]string
	ruleAt      map[ruleKey]string // field
	limits      cgroups.Limits
	classes     []string
	syscalls    []string
	auditStated bool // classes or syscalls
	delivery    Delivery
	onLoss      OnLoss
	stall       time.Duration
	durability  Durability
	flush       time.Duration
}

// binding is one ProfileBinding.
type binding struct {
	document
	namespaces []string
	fallback   string // spec.default
	allowed    []string
	containers []containerRule
}

// containerRule gives a profile to containers by name and image.
type containerRule struct {
	names, images []string
	profile       string
}

func (d *document) source(field string) Source {
	at, ok := d.at[field]
	if !ok {
		at = d.at["metadata.name"]
	}
	return Source{Profile: d.name, File: d.file, Line: at.line}
}

func (d *document) fault(field, msg, hint string) *Error {
	at, ok := d.at[field]
	if !ok {
		at = d.at["metadata.name"]
	}
	return &Error{File: d.file, Line: at.line, Column: at.column, Field: field, Msg: msg, Hint: hint}
}
