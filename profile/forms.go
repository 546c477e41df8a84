// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"time"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile/form"
	"metsuke.dev/metsuke/seccomp"
)

// Bounds of what documents hold, well above all that people write. The API server checks the same, and what it may spend on that
// grows with them.
const (
	maxRules      = 256  // of one list of rules, for calls or for containers
	maxConds      = 16   // of one rule
	maxSyscalls   = 512  // of one list; there are fewer
	maxParents    = 32   // that one profile extends
	maxNamespaces = 1024 // of one binding
	maxAllowed    = 256  // profiles
	maxPatterns   = 64   // of one rule for containers
	maxDevices    = 64
	maxPageSizes  = 16
	maxName       = 63   // characters of a name that may become a label
	maxValue      = 112  // of a number, or of constants joined by |
	maxQuantity   = 40   // as package cgroups has it
	maxCPUList    = 512  // of a list of CPUs
	maxPattern    = 256  // of a pattern of names or images
	maxReason     = 1024 // of the reason of a rule
	maxText       = 4096 // of a description
)

// Bounds of stallTimeout.
const (
	MinStall = 100 * time.Millisecond
	MaxStall = 10 * time.Minute
)

// Bounds of flushInterval.
const (
	MinFlush = 100 * time.Millisecond
	MaxFlush = time.Minute
)

// The forms of names and patterns.
const (
	// namePattern is that of a Kubernetes name, short enough for a label. Names become layers and stand in the events.
	namePattern = `^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`
	// namespacePattern is that of an RFC 1123 label, or the star.
	namespacePattern = `^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|\*)$`
	// globPattern has no white space, and at most two stars in a row.
	globPattern = `^(\*{0,2}[^* \t\n])*\*{0,2}$`
)

// AgentProfileForm returns the form of the spec of an AgentProfile.
func AgentProfileForm() *form.Field { return profileForm }

// NameForm returns the form of metadata.name.
func NameForm() *form.Field { return metadataForm.At("name") }

// BindingForm returns the form of the spec of a ProfileBinding.
func BindingForm() *form.Field { return bindingForm }

func text(name, doc string, most int) *form.Field {
	return &form.Field{Name: name, Doc: doc, Kind: form.Text, Most: most}
}

func profileName(name, doc string) *form.Field {
	return &form.Field{Name: name, Doc: doc, Kind: form.Text, Most: maxName, Pattern: namePattern}
}

func word(name, doc string, words ...form.Word) *form.Field {
	return &form.Field{Name: name, Doc: doc, Kind: form.Text, Words: words}
}

// names is a list of different texts.
func names(name, doc string, most int, entry *form.Field) *form.Field {
	return &form.Field{Name: name, Doc: doc, Kind: form.List, Most: most, Unique: true, Entry: entry}
}

// required is f as a field without which a document is refused, atLeastOne as a list that is not empty.
func required(f *form.Field) *form.Field {
	f.Required = true
	return f
}

func atLeastOne(f *form.Field) *form.Field {
	f.Least = 1
	return f
}

var profileForm = &form.Field{Name: "spec", Doc: "what the containers may do, what they may use, and what of it is recorded", Kind: form.Object, Required: true, Fields: []*form.Field{
	text("description", "for people", maxText),
	names("extends", "profiles that this one builds on; it may only tighten what they say", maxParents, profileName("", "the name of a profile")),
	{Name: "replace", Doc: "what is stated here takes the place of what is inherited, so it may loosen", Kind: form.Bool},
	{Name: "noNewPrivileges", Doc: "the process's no_new_privs flag: set-uid programs and file capabilities have no effect", Kind: form.BoolOrInherit, Words: nnpWords},
	seccompForm,
	limitsForm,
	auditForm,
}}

var seccompForm = &form.Field{Name: "seccomp", Doc: "what the filter decides: kill is tried first, then allow, then deny, then default", Kind: form.Object, Fields: []*form.Field{
	word("default", "what becomes of a call that no rule names", defaultWords...),
	{Name: "defaultErrno", Doc: "the error of calls that are denied by default; EPERM unless stated", Kind: form.Errno, Most: maxQuantity},
	rulesForm(seccomp.ActionDeny, "calls that return an error; each is an event",
		&form.Field{Name: "errno", Doc: "the error that the call returns; EPERM unless stated", Kind: form.Errno, Most: maxQuantity}),
	rulesForm(seccomp.ActionKill, "calls that end their process; each is an event"),
	rulesForm(seccomp.ActionAllow, "exceptions from deny and from the default"),
	names("architectures", "foreign ABIs whose calls the rules judge; those of others return ENOSYS", 2*len(seccomp.KnownArches()), word("", "an ABI", archWords()...)),
}}

func rulesForm(action seccomp.Action, doc string, more ...*form.Field) *form.Field {
	fields := []*form.Field{
		required(atLeastOne(names("syscalls", "names of system calls", maxSyscalls, syscallForm))),
		{Name: "args", Doc: "conditions on the call's arguments, all of which must hold", Kind: form.List, Most: maxConds, Entry: condForm},
		{Name: "id", Doc: fmt.Sprintf("what the rule is called in events; %s-1, %[1]s-2 … if left out", action), Kind: form.Text, Most: maxName, Pattern: namePattern},
		text("reason", "for people", maxReason),
	}
	return &form.Field{Name: action.String(), Doc: doc, Kind: form.List, Most: maxRules, Entry: &form.Field{Doc: "a rule", Kind: form.Object, Fields: append(fields, more...)}}
}

var condForm = &form.Field{Doc: "a condition on one argument, as the register holds it", Kind: form.Object, Fields: []*form.Field{
	{Name: "index", Doc: "the argument, from 0", Kind: form.Argument, Required: true},
	required(word("op", "how it is compared", opWords()...)),
	{Name: "value", Doc: valueDoc, Kind: form.Number, Most: maxValue, Required: true},
	{Name: "mask", Doc: "the bits that masked_eq compares: " + valueDoc, Kind: form.Number, Most: maxValue},
}}

var syscallForm = &form.Field{Doc: "a system call, as in its man page", Kind: form.Syscall}

const valueDoc = "a number (7, -1, 0x7), or names of constants joined by |"

var limitsForm = &form.Field{Name: "limits", Doc: "ceilings: they only lower what the pod asks for, and are read back before it starts", Kind: form.Object, Fields: append(resourceForms(),
	names("bestEffort", "limits stated here without which a container may start, where the node cannot enforce them", len(cgroups.Resources()),
		word("", "a limit", limitWords()...)))}

func resourceForms() (forms []*form.Field) {
	kinds := map[string]form.Kind{cgroups.CPU: form.CPUs, cgroups.CPUWeight: form.Count, cgroups.CPUSet: form.CPUList, cgroups.Memory: form.Bytes, cgroups.MemoryHigh: form.Bytes,
		cgroups.Swap: form.Bytes, cgroups.Pids: form.Count, cgroups.Hugepages: form.Mapping, cgroups.IO: form.Mapping}
	for _, r := range cgroups.Resources() {
		f := &form.Field{Name: r.Name, Doc: r.Doc, Kind: kinds[r.Name], Most: maxQuantity, Min: r.Least, Max: r.Most}
		switch r.Name {
		case cgroups.CPUWeight:
			f.Doc += ", " + r.Unit
		case cgroups.CPUSet:
			f.Most = maxCPUList
		case cgroups.Hugepages:
			f.Names, f.Most, f.Entry = form.PageSize, maxPageSizes, &form.Field{Doc: "bytes of pages of this size", Kind: form.Bytes, Most: maxQuantity, Min: r.Least}
		case cgroups.IO:
			f.Names, f.Most, f.Entry = form.Device, maxDevices, &form.Field{Doc: "the rates of one device; at least one", Kind: form.Object, Least: 1, Fields: []*form.Field{
				{Name: "readBPS", Doc: "bytes read a second", Kind: form.Bytes, Most: maxQuantity, Min: r.Least},
				{Name: "writeBPS", Doc: "bytes written a second", Kind: form.Bytes, Most: maxQuantity, Min: r.Least},
				{Name: "readIOPS", Doc: "reads a second", Kind: form.Count, Most: maxQuantity, Min: r.Least},
				{Name: "writeIOPS", Doc: "writes a second", Kind: form.Count, Most: maxQuantity, Min: r.Least},
			}}
		}
		forms = append(forms, f)
	}
	return forms
}

var auditForm = &form.Field{Name: "audit", Doc: "what is recorded beside what is denied or killed, which always is", Kind: form.Object, Fields: []*form.Field{
	names("classes", "classes of system calls to record", len(seccomp.Classes()), word("", "an audit class", classWords()...)),
	names("syscalls", "single system calls to record beside the classes", maxSyscalls, syscallForm),
	word("delivery", "when an audited call goes on", deliveryWords...),
	word("onLoss", "what happens to a container whose events can no longer be recorded", onLossWords...),
	{Name: "stallTimeout", Doc: fmt.Sprintf("how long a record may stall before onLoss, %s to %s; as the node's configuration says unless stated", MinStall, MaxStall), Kind: form.Duration, Most: maxQuantity},
	word("durability", "when a record is safe from a node that goes down", durabilityWords...),
	{Name: "flushInterval", Doc: fmt.Sprintf("how long a record may be not on the disk under durability batched, %s to %s; %s unless stated", MinFlush, MaxFlush, DefaultFlushInterval), Kind: form.Duration, Most: maxQuantity},
}}

var bindingForm = &form.Field{Name: "spec", Doc: "which pods get, and may choose, which profile", Kind: form.Object, Required: true, Fields: []*form.Field{
	required(atLeastOne(names("namespaces", `names of namespaces, or "*" for all that no binding names`, maxNamespaces,
		&form.Field{Doc: "a namespace", Kind: form.Text, Most: maxName, Pattern: namespacePattern}))),
	profileName("default", "the profile of pods that choose none; without it they must choose"),
	names("allowed", "profiles that a pod's annotation "+Annotation+" may name beside the default", maxAllowed, profileName("", "the name of a profile")),
	{Name: "containers", Doc: "profiles of single containers; the first that fits decides, before the annotation", Kind: form.List, Most: maxRules, Entry: &form.Field{
		Doc: "a rule for containers, by name, image or both", Kind: form.Object, Fields: []*form.Field{
			names("names", "patterns of the container's name", maxPatterns, patternForm),
			names("images", "patterns of the image's reference, as the runtime resolved it", maxPatterns, patternForm),
			required(profileName("profile", "what these containers get")),
		}}},
}}

var patternForm = &form.Field{Doc: "* stands for anything but /, ** for anything", Kind: form.Text, Most: maxPattern, Pattern: globPattern}

// What is around the spec. The API server knows more of it than files may have.
var (
	documentForm = &form.Field{Kind: form.Object, Fields: []*form.Field{
		required(text("apiVersion", "", 0)), required(text("kind", "", 0)), {Name: "metadata", Kind: form.Object, Required: true}, {Name: "spec", Kind: form.Object, Required: true},
	}}
	// versionForm is what is said of a document of another version.
	versionForm = &form.Field{Kind: form.Object, Fields: []*form.Field{required(text("apiVersion", "", 0)), text("kind", "", 0),
		{Name: "metadata", Kind: form.Object}, {Name: "spec", Kind: form.Object}}}
	metadataForm = &form.Field{Kind: form.Object, Fields: []*form.Field{
		required(profileName("name", "")), {Name: "labels", Kind: form.Object}, {Name: "annotations", Kind: form.Object},
	}}
	builtinForm = &form.Field{Name: "spec", Kind: form.Object, Required: true,
		Fields: append(slices.Clip(profileForm.Fields), &form.Field{Name: "passthrough", Kind: form.Bool})}
)

var nnpWords = []form.Word{
	{Name: string(NNPTrue), Doc: "the flag is set, whatever the pod asks; the default"},
	{Name: string(NNPInherit), Doc: "as the pod asks (allowPrivilegeEscalation)"},
}

var defaultWords = []form.Word{
	{Name: "allow", Doc: "what no rule names is allowed; the default"},
	{Name: "deny", Doc: "what no rule names is denied, with defaultErrno (EPERM unless stated)"},
}

var deliveryWords = []form.Word{
	{Name: string(DeliveryOrdered), Doc: "an audited call goes on when its record is in the stream; the default"},
	{Name: string(DeliveryBuffered), Doc: "it goes on while its record is on the way, as long as not much is"},
}

var onLossWords = []form.Word{
	{Name: string(OnLossKill), Doc: "a container whose events cannot be recorded is killed; the default"},
	{Name: string(OnLossContinue), Doc: "it goes on, and the gap becomes a record with its count"},
}

var durabilityWords = []form.Word{
	{Name: string(DurabilityBatched), Doc: "after a flushInterval; the default"},
	{Name: string(DurabilitySynced), Doc: "before its call goes on, or is refused: it is on the disk then"},
}

func archWords() (words []form.Word) {
	for _, a := range seccomp.KnownArches() {
		words = append(words, form.Word{Name: a.Name, Doc: a.Doc})
	}
	for _, a := range seccomp.KnownArches() {
		words = append(words, form.Word{Name: a.Go, Doc: "the same as " + a.Name})
	}
	return words
}

func opWords() (words []form.Word) {
	for _, o := range seccomp.KnownOps() {
		words = append(words, form.Word{Name: string(o.Op), Doc: o.Doc})
	}
	return words
}

func limitWords() (words []form.Word) {
	for _, r := range cgroups.Resources() {
		words = append(words, form.Word{Name: r.Name, Doc: r.Doc})
	}
	return words
}

func classWords() (words []form.Word) {
	for _, c := range seccomp.Classes() {
		words = append(words, form.Word{Name: c.Name, Doc: c.Doc})
	}
	return words
}
