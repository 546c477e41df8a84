// SPDX-License-Identifier: Apache-2.0

package record

import (
	"time"

	"metsuke.dev/metsuke/audit"
)

// wire has the fields of all kinds side by side, as the record has them.
type wire struct {
	V             int    `json:"v"`
	Time          string `json:"time"`
	Seq           uint64 `json:"seq"`
	Node          string `json:"node"`
	Namespace     string `json:"namespace"`
	Pod           string `json:"pod"`
	PodUID        string `json:"podUID"`
	Container     string `json:"container"`
	ContainerID   string `json:"containerID"`
	Exec          string `json:"exec"`
	Profile       string `json:"profile"`
	ProfileDigest string `json:"profileDigest"`
	Kind          string `json:"kind"`
	Chain         string `json:"chain"`

	// Of several kinds.
	PID           uint32        `json:"pid"`
	UID           uint32        `json:"uid"`
	GID           uint32        `json:"gid"`
	SeccompMode   int           `json:"seccompMode"`
	Filters       int           `json:"filters"`
	NoNewPrivs    bool          `json:"noNewPrivs"`
	OnLoss        string        `json:"onLoss"`
	Count         uint64        `json:"count"`
	Bytes         uint64        `json:"bytes"`
	Until         time.Time     `json:"until"`
	Placement     string        `json:"placement"`
	Delegate      string        `json:"delegate"`
	Image         string        `json:"image"`
	FlushInterval time.Duration `json:"flushInterval"`

	// loss
	From time.Time `json:"from"`

	// syscall
	TID     uint32    `json:"tid"`
	PPID    uint32    `json:"ppid"`
	Comm    string    `json:"comm"`
	Exe     string    `json:"exe"`
	Syscall string    `json:"syscall"`
	Nr      int32     `json:"nr"`
	Arch    string    `json:"arch"`
	Args    []wireArg `json:"args"`
	Class   string    `json:"class"`
	Verdict string    `json:"verdict"`
	Errno   string    `json:"errno"`
	RuleID  string    `json:"ruleID"`
	Origin  string    `json:"origin"`

	// start
	Durability   string      `json:"durability"`
	Version      string      `json:"version"`
	Kernel       string      `json:"kernel"`
	FilterDigest string      `json:"filterDigest"`
	Limits       []wireLimit `json:"limits"`

	// timing
	Began       time.Time `json:"began"`
	SandboxID   string    `json:"sandboxID"`
	Traceparent string    `json:"traceparent"`
	Laps        []wireLap `json:"laps"`

	// exec
	Terminal  bool     `json:"terminal"`
	Argv      []string `json:"argv"`
	Truncated bool     `json:"truncated"`

	// limit
	Operation string `json:"operation"`
	Resource  string `json:"resource"`
	Requested string `json:"requested"`
	Ceiling   string `json:"ceiling"`
	Applied   string `json:"applied"`

	// oom, loss, exit
	MemoryLimit uint64 `json:"memoryLimit"`
	Reason      string `json:"reason"`
	Detail      string `json:"detail"`
	Status      uint32 `json:"status"`
	Signal      string `json:"signal"`
	Cause       string `json:"cause"`

	// end
	Records uint64 `json:"records"`
	Calls   uint64 `json:"calls"`
	Denied  uint64 `json:"denied"`
	Losses  uint64 `json:"losses"`
	Missing uint64 `json:"missing"`
}

type wireArg struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	Evidence  string `json:"evidence"`
	Truncated bool   `json:"truncated"`
}

type wireLimit struct {
	Name       string `json:"name"`
	Asked      string `json:"asked"`
	Found      string `json:"found"`
	BestEffort bool   `json:"bestEffort"`
}

type wireLap struct {
	Phase    string `json:"phase"`
	Offset   int64  `json:"offset"`
	Duration int64  `json:"duration"`
}

// payload sets the payload of e.Kind.
func (w *wire) payload(e *audit.Event, u *unquoter) {
	switch e.Kind {
	case audit.KindStart:
		e.Receipt = &audit.Receipt{
			Version: u.text(w.Version), Kernel: u.text(w.Kernel), Placement: u.text(w.Placement),
			Delegate: u.text(w.Delegate), Image: u.text(w.Image), PID: w.PID, SeccompMode: w.SeccompMode,
			Filters: w.Filters, FilterDigest: u.text(w.FilterDigest), NoNewPrivs: w.NoNewPrivs, OnLoss: u.text(w.OnLoss),
			Durability: u.text(w.Durability), FlushInterval: w.FlushInterval,
		}
		for _, l := range w.Limits {
			e.Receipt.Limits = append(e.Receipt.Limits, audit.ReceiptLimit{
				Name: u.text(l.Name), Asked: u.text(l.Asked), Found: u.text(l.Found), BestEffort: l.BestEffort,
			})
		}
	case audit.KindTiming:
		e.Timing = &audit.Timing{
			Began: w.Began, SandboxID: u.text(w.SandboxID), Delegate: u.text(w.Delegate), Placement: u.text(w.Placement),
			Image: u.text(w.Image), Traceparent: u.text(w.Traceparent),
		}
		for _, l := range w.Laps {
			e.Timing.Laps = append(e.Timing.Laps, audit.Lap{
				Phase: u.text(l.Phase), Offset: time.Duration(l.Offset), Duration: time.Duration(l.Duration),
			})
		}
	case audit.KindSyscall:
		e.Syscall = &audit.Syscall{
			PID: w.PID, TID: w.TID, PPID: w.PPID, UID: w.UID, GID: w.GID, Comm: u.text(w.Comm), Exe: u.text(w.Exe),
			Syscall: u.text(w.Syscall), Nr: w.Nr, Arch: u.text(w.Arch), Class: u.text(w.Class),
			Verdict: audit.Verdict(u.text(w.Verdict)), Errno: u.text(w.Errno), RuleID: u.text(w.RuleID), Origin: u.text(w.Origin),
			Count: w.Count, Until: w.Until,
		}
		for _, a := range w.Args {
			e.Syscall.Args = append(e.Syscall.Args, audit.Arg{
				Name: u.text(a.Name), Value: u.text(a.Value), Evidence: audit.Evidence(u.text(a.Evidence)), Truncated: a.Truncated,
			})
		}
	case audit.KindExec:
		e.ExecStart = &audit.ExecStart{
			PID: w.PID, UID: w.UID, GID: w.GID, Terminal: w.Terminal,
			SeccompMode: w.SeccompMode, Filters: w.Filters, NoNewPrivs: w.NoNewPrivs, Truncated: w.Truncated,
		}
		for _, word := range w.Argv {
			e.ExecStart.Argv = append(e.ExecStart.Argv, u.text(word))
		}
	case audit.KindLimit:
		e.Limit = &audit.Limit{
			Operation: u.text(w.Operation), Resource: u.text(w.Resource),
			Requested: u.text(w.Requested), Ceiling: u.text(w.Ceiling), Applied: u.text(w.Applied),
		}
	case audit.KindOOM:
		e.OOM = &audit.OOM{Count: w.Count, MemoryLimit: w.MemoryLimit}
	case audit.KindLoss:
		e.Loss = &audit.Loss{
			Reason: u.text(w.Reason), Count: w.Count, Bytes: w.Bytes, OnLoss: u.text(w.OnLoss), Detail: u.text(w.Detail),
			From: w.From, Until: w.Until, FlushInterval: w.FlushInterval,
		}
	case audit.KindExit:
		e.Exit = &audit.Exit{Status: w.Status, Signal: u.text(w.Signal), Cause: u.text(w.Cause)}
	case audit.KindEnd:
		e.End = &audit.End{
			Records: w.Records, Bytes: w.Bytes, Calls: w.Calls, Denied: w.Denied, Losses: w.Losses, Missing: w.Missing,
		}
	}
}

// unquoter turns the strings of a record back into the bytes they stand for.
type unquoter struct{ failed bool }

func (u *unquoter) text(s string) string {
	raw, ok := audit.Unquote(s)
	u.failed = u.failed || !ok
	return raw
}
