// SPDX-License-Identifier: Apache-2.0

package audit

import "slices"

// Field describes one field of a record. The tables below are in the order in which the encoder writes;
// a test holds them to what it writes, and the event reference is generated from them.
type Field struct {
	Name     string
	Type     string // string, integer, boolean, time, list
	Optional bool   // left out when empty, zero or false
	Doc      string // Markdown
}

// CommonFields are those of every record, which come first.
func CommonFields() []Field {
	return []Field{
		{"v", "integer", false, "Version of the form: 1. Fields are only ever added within a version; ignore those you do not know."},
		{"time", "time", false, "When it happened (of a folded record: when the first one did), by the clock of the supervisor's kernel; a guest's is corrected where the node knows better."},
		{"seq", "integer", false, "Number of the record in its stream: 1, 2, 3, … without gaps, across segments, restarts and instances of the container."},
		{"node", "string", false, "Name of the node."},
		{"namespace", "string", false, "Kubernetes namespace of the pod."},
		{"pod", "string", false, "Name of the pod."},
		{"podUID", "string", false, "UID of the pod."},
		{"container", "string", false, "Name of the container in the pod."},
		{"containerID", "string", false, "The runtime's id of this instance of the container."},
		{"exec", "string", false, "Id of the exec session that it belongs to. Empty: the container's own process tree."},
		{"profile", "string", false, "Name of the profile in force."},
		{"profileDigest", "string", false, "SHA-256 of the resolved profile, hex."},
		{"kind", "string", false, "What the record is about; decides which fields follow."},
	}
}

// ChainField is the last field of every record of a stream.
func ChainField() Field {
	return Field{"chain", "string", false, "SHA-256, 64 hex digits, of the previous record's `chain` and this record up to here. See *The chain*."}
}

var inForce = []Field{
	{"seccompMode", "integer", false, "`Seccomp` of `/proc/PID/status`: 2 is a filter."},
	{"filters", "integer", false, "`Seccomp_filters` of `/proc/PID/status`."},
}

// Fields are those of one kind, between the common ones and the chain; nil for an unknown kind.
func Fields(k Kind) []Field {
	switch k {
	case KindStart:
		return slices.Concat([]Field{
			{"version", "string", false, "Version of Metsuke."},
			{"kernel", "string", false, "Release of the kernel that enforces the filter."},
			{"placement", "string", false, "Where the supervisor runs: `host` or `guest`."},
			{"delegate", "string", false, "Runtime type of the delegate, such as `io.containerd.runc.v2`."},
			{"image", "string", false, "The container's image, as the pod names it."},
			{"pid", "integer", false, "Process id of the container's first process, in the supervisor's numbering."},
		}, inForce, []Field{
			{"filterDigest", "string", false, "SHA-256 of the filter program that was installed, hex."},
			{"noNewPrivs", "boolean", false, "`NoNewPrivs` of `/proc/PID/status`."},
			{"onLoss", "string", false, "What happens when the stream cannot be kept: `kill` or `continue`."},
			{"durability", "string", true, "When a record is safe from a node that goes down: `synced`, before its call goes on; `batched`, after `flushInterval`."},
			{"flushInterval", "integer", true, "Only with `batched`: nanoseconds that a record may be not on the disk."},
			{"limits", "list", false, "The limits, each as below."},
		})
	case KindTiming:
		return []Field{
			{"began", "time", false, "When the request to create the container came, by the node's clock."},
			{"sandboxID", "string", false, "The runtime's id of the pod's sandbox. Without CRI: of the container that made the pod."},
			{"delegate", "string", false, "As in the receipt."},
			{"placement", "string", false, "As in the receipt."},
			{"image", "string", false, "As in the receipt."},
			{"traceparent", "string", true, "The span that the request belongs to, in the form of W3C Trace Context. Absent where containerd traces nothing."},
			{"laps", "list", false, "The phases in the order in which they were gone through, each as below. Between two of them the runtime took its time."},
		}
	case KindSyscall:
		return []Field{
			{"pid", "integer", false, "Process id. Like all ids here in the supervisor's numbering: the host's, or that of the container's pid namespace where the supervisor runs in the container."},
			{"tid", "integer", false, "Thread id."},
			{"ppid", "integer", false, "Process id of the parent."},
			{"uid", "integer", false, "Effective user id."},
			{"gid", "integer", false, "Effective group id."},
			{"comm", "string", false, "Name of the thread. The workload can set it to anything."},
			{"exe", "string", false, "Path of the program that the process runs, as its container sees it."},
			{"syscall", "string", false, "Name of the system call; `syscall_<nr>` if the number has none."},
			{"nr", "integer", false, "Number of the system call, in the numbering of `arch`."},
			{"arch", "string", false, "Calling convention, in OCI's names: `SCMP_ARCH_X86_64`, `SCMP_ARCH_X86`, `SCMP_ARCH_AARCH64`, …"},
			{"args", "list", false, "The decoded arguments, each as below."},
			{"class", "string", true, "Audit class that asked for the record. Absent for a denial outside all classes."},
			{"verdict", "string", false, "What became of the call."},
			{"errno", "string", true, "Name of the error that the call got, such as `EPERM`."},
			{"ruleID", "string", true, "The rule that decided. Absent when a default did."},
			{"origin", "string", true, "The profile that decided, or `pod` for the pod's own seccomp profile."},
			{"count", "integer", true, "Only in a folded record: how many equal calls it stands for, 2 or more. The other fields show the first of them."},
			{"until", "time", true, "Only with `count`: when the last of them happened."},
		}
	case KindExec:
		return slices.Concat([]Field{
			{"pid", "integer", false, "Process id of the session's first process."},
			{"uid", "integer", false, "User id that was asked for."},
			{"gid", "integer", false, "Group id that was asked for."},
			{"terminal", "boolean", false, "Whether it has a terminal."},
		}, inForce, []Field{
			{"noNewPrivs", "boolean", false, "`NoNewPrivs` of `/proc/PID/status`."},
			{"argv", "list", false, "The command that was asked for: strings, 4096 bytes of them together."},
			{"truncated", "boolean", true, "`argv` is only the beginning."},
		})
	case KindLimit:
		return []Field{
			{"operation", "string", false, "The request that was lowered: `create` or `update`."},
			{"resource", "string", false, "The limit, as a profile names it: `memory`, `pids`, …"},
			{"requested", "string", false, "What the request asked."},
			{"ceiling", "string", false, "What the profile allows at most."},
			{"applied", "string", false, "What was put in force."},
		}
	case KindOOM:
		return []Field{
			{"count", "integer", false, "Processes killed since the last such record; 0: not known."},
			{"memoryLimit", "integer", false, "Memory that was allowed, in bytes; 0: not known."},
		}
	case KindLoss:
		return []Field{
			{"reason", "string", false, "Why; see *Reasons of a loss*."},
			{"count", "integer", false, "How many events are missing, in the sense of `reason`; 0: none, or not known."},
			{"bytes", "integer", false, "Bytes that were cut from the end of the stream."},
			{"onLoss", "string", true, "What was done with the container: `kill` or `continue`."},
			{"detail", "string", true, "The error, for people."},
			{"from", "time", true, "Only with `node-died`: of the last record that is there; records of later on may be missing."},
			{"until", "time", true, "Only with `node-died`: when the node was up again."},
			{"flushInterval", "integer", true, "Only with `node-died`: nanoseconds before the node went down of which records may be missing at most, beside those of a flush that was under way. Absent: `durability: synced`, none is missing whose call went on."},
		}
	case KindExit:
		return []Field{
			{"status", "integer", false, "Exit status; 128 and the signal's number if a signal ended it."},
			{"signal", "string", true, "The signal that ended it, such as `SIGKILL`."},
			{"cause", "string", true, "Why, if it was not the process's own doing; see *Causes of an exit*."},
		}
	case KindEnd:
		return []Field{
			{"records", "integer", false, "Records of this instance, this one not counted."},
			{"bytes", "integer", false, "Bytes of these records."},
			{"calls", "integer", false, "System calls that they tell of; a folded record tells of many."},
			{"denied", "integer", false, "Of these calls, those that were denied or killed."},
			{"losses", "integer", false, "Records of kind `loss`."},
			{"missing", "integer", false, "Events that are missing according to them, as far as they know."},
		}
	}
	return nil
}

// ArgFields are those of one element of a system call's "args".
func ArgFields() []Field {
	return []Field{
		{"name", "string", false, "Name of the argument in the call's manual page."},
		{"value", "string", false, "What it holds: the text of a path; numbers, flags by name, lists and addresses as text. At most 4096 bytes."},
		{"evidence", "string", false, "How it was learnt; see *Evidence*."},
		{"truncated", "boolean", true, "`value` is only the beginning."},
	}
}

// LimitFields are those of one element of a receipt's "limits".
func LimitFields() []Field {
	return []Field{
		{"name", "string", false, "The limit, as a profile names it."},
		{"asked", "string", false, "What the profile and the pod asked for together."},
		{"found", "string", false, "What the kernel has in force. Empty: nothing."},
		{"bestEffort", "boolean", true, "The profile allows it to be missing."},
	}
}

// LapFields are those of one element of a timing's "laps".
func LapFields() []Field {
	return []Field{
		{"phase", "string", false, "`resolve`, `rewrite`, `delegate` (its own Create, and then its Start) or `armed`, as in [metrics.md](metrics.md)."},
		{"offset", "integer", false, "When it began: nanoseconds after `began`."},
		{"duration", "integer", false, "How long it took, in nanoseconds."},
	}
}
