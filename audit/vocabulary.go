// SPDX-License-Identifier: Apache-2.0

package audit

// Kind says what an event is about, and with that which fields it has.
type Kind string

// The kinds, described by Kinds.
const (
	KindStart   Kind = "start"
	KindTiming  Kind = "timing"
	KindSyscall Kind = "syscall"
	KindExec    Kind = "exec"
	KindLimit   Kind = "limit"
	KindOOM     Kind = "oom"
	KindLoss    Kind = "loss"
	KindExit    Kind = "exit"
	KindEnd     Kind = "end"
)

// Verdict is what became of an audited call.
type Verdict string

// The verdicts, described by Verdicts.
const (
	VerdictAllowed Verdict = "allowed"
	VerdictDenied  Verdict = "denied"
	VerdictKilled  Verdict = "killed"
)

// Evidence says how a value was learnt, and with that how far it can be trusted.
type Evidence string

// The grades of evidence, described by Evidences.
const (
	EvidenceRegister Evidence = "register"
	EvidencePeeked   Evidence = "peeked"
)

// Reasons of a loss, described by LossReasons.
const (
	LossSupervisor = "supervisor-died"
	LossShim       = "shim-died"
	LossNode       = "node-died"
	LossStream     = "stream-failed"
	LossTorn       = "torn-record"
	LossSigned     = "signed-missing"
)

// Causes of an exit that was not the process's own doing, described by ExitCauses.
const (
	CauseOOM        = "oom"
	CauseProfile    = "profile"
	CausePodSeccomp = "pod-seccomp"
	CauseLoss       = "loss"
)

// Term is one word of a vocabulary and its meaning, as a sentence in Markdown.
type Term struct{ Name, Doc string }

// Kinds are all kinds, in the order in which a container's life has them.
func Kinds() []Term {
	return []Term{
		{string(KindStart), "The receipt: what was found in force, read back from the kernel before the workload's first instruction. First record of each instance of a container, but for a `loss` that the one before left."},
		{string(KindTiming), "How long the container's start took, phase by phase. Written once it has succeeded, so records of what the workload did first come before it."},
		{string(KindSyscall), "A system call that the profile audits, denied or killed. The workload's own `execve` is the first."},
		{string(KindExec), "An exec session (`kubectl exec`, a probe) began, with the same filter in force; its events carry its id in `exec`."},
		{string(KindLimit), "A request for resources was lowered to the profile's ceiling."},
		{string(KindOOM), "The kernel killed a process of the container for want of memory."},
		{string(KindLoss), "Events are missing here, or may be; `reason` and `count` say what is known."},
		{string(KindExit), "The container's first process ended; with `exec` set, the exec session's did."},
		{string(KindEnd), "The container was deleted: totals of this instance. Last record of an instance whose shim lived to its end; another one may go on behind it."},
	}
}

// Verdicts are all verdicts, from mild to strict.
func Verdicts() []Term {
	return []Term{
		{string(VerdictAllowed), "The call went on; with `delivery: ordered` not before this record was written. Whether it succeeded is not known."},
		{string(VerdictDenied), "The call was not carried out; it returned `errno`."},
		{string(VerdictKilled), "The call was not carried out; its process was killed."},
	}
}

// Evidences are all grades of evidence, from strong to weak.
func Evidences() []Term {
	return []Term{
		{string(EvidenceRegister), "Exact: the register that the kernel acts on. Only such values decide a verdict."},
		{string(EvidencePeeked), "Read through a pointer into the workload's memory while the call waited. Another thread of the workload may have changed it before the kernel read it: a lead, never a proof, and no verdict rests on it."},
	}
}

// LossReasons are all reasons of a loss.
func LossReasons() []Term {
	return []Term{
		{LossSupervisor, "The supervisor ended while the container ran. Calls it had not answered got ENOSYS from the kernel. `count`: folded denials that were answered but not in a record yet."},
		{LossShim, "The shim ended (it was killed) and containerd cleaned up after it, or another one went on. `count` as for `supervisor-died`."},
		{LossNode, "The node was booted anew while the stream was open: its power failed, its kernel crashed, it was reset. Records between `from` and `until` may be missing, as `flushInterval` bounds it. `count` as for `supervisor-died`, but some of these may be in records too; `bytes` were cut, because records before them were gone."},
		{LossStream, "The stream could not be written for longer than the profile's `stallTimeout`; or denials of a flood were counted, and the container, its guest or its supervisor ended before their record. `count`: events that are not in the stream because of it."},
		{LossTorn, "A crash left an incomplete record at the end; `bytes` were cut. Its call had not been answered."},
		{LossSigned, "`count` records are not there although the stream was signed beyond them: somebody took them, or a disk that had not kept what it acknowledged. `metsuke audit verify` says which."},
	}
}

// ExitCauses are the causes that an exit can have beside the process's own doing.
func ExitCauses() []Term {
	return []Term{
		{CauseOOM, "Killed for want of memory; see the `oom` record before it."},
		{CauseProfile, "Killed by a rule of the profile; see the `killed` record before it."},
		{CausePodSeccomp, "Killed by the kernel for the pod's own seccomp profile (signal SIGSYS). The call itself is not in the stream."},
		{CauseLoss, "Killed by Metsuke, because the stream could not be kept and the profile says `onLoss: kill`."},
	}
}

// KnownVerdict tells whether s is a verdict.
func KnownVerdict(s string) bool { return known(Verdicts(), s) }

func known(terms []Term, s string) bool {
	for _, t := range terms {
		if t.Name == s {
			return true
		}
	}
	return false
}
