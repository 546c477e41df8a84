// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stats"
	"metsuke.dev/metsuke/audit/timeline"
)

// Bounds of what is kept of one fact.
const (
	maxPrograms = 3   // that did it
	maxKept     = 256 // bytes of a name or a value
	maxLimits   = 12  // of a receipt
)

// fact is what the rows of all tables have in common: in which container, when, and by which programs.
type fact struct {
	container   int
	first, last int64
	programs    []string
	more        bool // programs that are not kept
}

// happened takes note of one more call.
func (f *fact) happened(call *audit.Syscall, at int64) {
	f.first, f.last = min(f.first, at), max(f.last, at)
	if call.Count > 1 && !call.Until.IsZero() {
		f.last = max(f.last, nanos(call.Until))
	}
	program := call.Exe[:min(len(call.Exe), maxKept)]
	switch {
	case slices.Contains(f.programs, program):
	case len(f.programs) < maxPrograms:
		f.programs = append(f.programs, strings.Clone(program))
	default:
		f.more = true
	}
}

func newFact(at int64, c *container) fact { return fact{container: c.number, first: at, last: at} }

// denial is calls that were denied or killed in the same way.
type denial struct {
	fact
	call, rule, errno string
	verdict           audit.Verdict
	args              []arg // of the first one
}

// arg is an argument of a call.
type arg struct {
	name  string
	value Text
	exact bool // it was in a register
}

// destination is an address that a socket was to reach, or was bound to.
type destination struct {
	fact
	call, address string
	evidence      audit.Evidence
	refused       uint64 // of the calls, those that were denied or killed
}

// file is a path that was written, deleted or renamed.
type file struct {
	fact
	what, path, to string
	evidence       audit.Evidence
}

// key joins what makes two facts the same.
func key(c *container, parts ...string) string {
	for i := range parts {
		parts[i] = parts[i][:min(len(parts[i]), maxKept)]
	}
	return strconv.Itoa(c.number) + "\x00" + strings.Join(parts, "\x00")
}

func cut(s string) string { return strings.Clone(s[:min(len(s), maxKept)]) }

// deny takes in a call that was not carried out.
func (r *Report) deny(call *audit.Syscall, at int64, c *container) {
	if call.Verdict == audit.VerdictAllowed {
		return
	}
	rule := stats.Rule(call.Origin, call.RuleID)
	item := r.denials.Add(key(c, rule, call.Syscall, string(call.Verdict), call.Errno), max(1, call.Count))
	if item.Value == nil {
		d := &denial{
			fact: newFact(at, c), call: cut(call.Syscall), rule: cut(rule), errno: cut(call.Errno), verdict: audit.Verdict(cut(string(call.Verdict))),
		}
		for i := range call.Args {
			a := &call.Args[i]
			d.args = append(d.args, arg{cut(a.Name), valueText(a), a.Evidence == audit.EvidenceRegister})
		}
		item.Value = d
	}
	item.Value.happened(call, at)
}

func valueText(a *audit.Arg) Text {
	t := text(a.Value)
	t.Cut = t.Cut || a.Truncated
	return t
}

// reach takes in the addresses of a call, whatever became of it.
func (r *Report) reach(call *audit.Syscall, at int64, c *container) {
	for i := range call.Args {
		a := &call.Args[i]
		if !a.IsAddress() {
			continue
		}
		n := max(1, call.Count)
		item := r.destinations.Add(key(c, call.Syscall, a.Value), n)
		if item.Value == nil {
			item.Value = &destination{fact: newFact(at, c), call: cut(call.Syscall), address: cut(a.Value), evidence: audit.Evidence(cut(string(a.Evidence)))}
		}
		if call.Verdict != audit.VerdictAllowed {
			item.Value.refused += n
		}
		item.Value.happened(call, at)
	}
}

// touch takes in the file that a call that went on was to write, delete or rename.
func (r *Report) touch(call *audit.Syscall, at int64, c *container) {
	if call.Verdict != audit.VerdictAllowed {
		return
	}
	what := changes(call)
	if what == "" {
		return
	}
	var path, to string
	var evidence audit.Evidence
	for i := range call.Args {
		switch a := &call.Args[i]; {
		case !a.IsPath():
		case a.Name == "path", a.Name == "from":
			path, evidence = a.Value, a.Evidence
		case a.Name == "to", a.Name == "target":
			to = a.Value
		}
	}
	if evidence == "" { // by a descriptor: its name is not known
		return
	}
	files := &r.written
	if call.Class == "file-delete" {
		files = &r.removed
	}
	item := files.Add(key(c, what, path, to), max(1, call.Count))
	if item.Value == nil {
		item.Value = &file{fact: newFact(at, c), what: what, path: cut(path), to: cut(to), evidence: audit.Evidence(cut(string(evidence)))}
	}
	item.Value.happened(call, at)
}

// changes says what a call does to a file; empty: nothing that is listed.
func changes(call *audit.Syscall) string {
	name := call.Syscall
	switch {
	case call.Class == "file-delete" && strings.HasPrefix(name, "rename"):
		return "renamed"
	case call.Class == "file-delete":
		return "deleted"
	case call.Class != "file-write":
		return ""
	case strings.HasPrefix(name, "symlink"), strings.HasPrefix(name, "link"):
		return "linked"
	case strings.HasPrefix(name, "mkdir"), strings.HasPrefix(name, "mknod"):
		return "made"
	}
	return "written"
}

// receipt is what was found in force when an instance began.
type receipt struct {
	image, placement, delegate, kernel Text
	noNewPrivileges                    bool
	limits                             []Text
}

func newReceipt(r *audit.Receipt) *receipt {
	out := &receipt{
		image: text(r.Image), placement: text(r.Placement), delegate: text(r.Delegate), kernel: text(r.Kernel), noNewPrivileges: r.NoNewPrivs,
	}
	for _, l := range r.Limits[:min(len(r.Limits), maxLimits)] {
		what := l.Name + " ≤ " + l.Found
		if l.Found == "" {
			what = l.Name + " not in force, asked " + l.Asked
		}
		out.limits = append(out.limits, text(what))
	}
	return out
}

// said is what a record says, as other commands show it.
func said(e *audit.Event) *Text {
	t := text(string(timeline.Body(nil, e)))
	return &t
}

// pressure is a limit that was lowered, or a kill for want of memory.
type pressure struct {
	container int
	at        int64
	oom       bool
	what      Text
}

// gap is a place where records are missing, or may be.
type gap struct {
	container int
	after     int64  // time of the record before it; -1: there is none
	at        int64  // of the record that tells of it; -1: none does
	seq       uint64 // of the record that tells of it, or else of the one behind it
	reason    Text   // of a loss; or "missing"
	count     uint64
	bytes     uint64
	onLoss    Text
	detail    Text
}

func lost(r *record.Record, at int64, c *container) gap {
	l := r.Event.Loss
	return gap{
		container: c.number, after: c.at, at: at, seq: r.Seq, reason: text(l.Reason), count: l.Count, bytes: l.Bytes,
		onLoss: text(l.OnLoss), detail: text(l.Detail),
	}
}
