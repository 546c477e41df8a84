// SPDX-License-Identifier: Apache-2.0

// Package timeline shows records to people: one line each, in UTC, safe to print whatever the workload
// put into its names and paths.
package timeline

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

const (
	whoWidth     = 28 // columns that "namespace/pod[container]" gets at least
	verdictWidth = 8
	shownExec    = 8  // characters of an exec session's id that are shown
	shownDigest  = 12 // hex digits of a digest that are shown
	shownTime    = 10 * time.Microsecond
)

// Printer renders records. It remembers the day, to say when a new one begins. Not safe for concurrent use.
type Printer struct {
	Color bool // mark verdicts with the terminal's colours (ECMA-48 SGR)
	day   string
}

// Append appends the line of a record, with its newline, preceded by a line with the date when that has
// changed.
func (p *Printer) Append(dst []byte, r *record.Record) []byte {
	e := &r.Event
	at := e.Time.UTC()
	if day := at.Format(time.DateOnly); day != p.day {
		p.day = day
		dst = append(dst, "── "+day+" UTC ──\n"...)
	}
	dst = at.AppendFormat(dst, "15:04:05.000 ")
	start := len(dst)
	dst = appendBare(dst, r.Identity.Namespace+"/"+r.Identity.Pod+"["+r.Identity.Container)
	if e.Exec != "" {
		dst = append(dst, " exec "...)
		dst = appendBare(dst, head(e.Exec, shownExec))
	}
	dst = append(dst, ']')
	dst = pad(dst, start, whoWidth)
	dst = append(dst, ' ')
	dst = p.appendVerdict(dst, e)
	gap := max(verdictWidth-len(verdictOf(e)), 0) + 1
	body := len(dst) + gap
	dst = append(dst, strings.Repeat(" ", gap)...)
	dst = appendBody(dst, e)
	if len(dst) == body { // no blanks at the end of a line
		dst = dst[:body-gap]
	}
	return append(dst, '\n')
}

func verdictOf(e *audit.Event) string {
	if e.Syscall != nil {
		return string(e.Syscall.Verdict)
	}
	return string(e.Kind)
}

// colors are SGR parameters by verdict or kind.
var colors = map[string]string{
	string(audit.VerdictDenied): "33", string(audit.VerdictKilled): "31",
	string(audit.KindStart): "32", string(audit.KindOOM): "31", string(audit.KindLoss): "1;31", string(audit.KindLimit): "33",
}

func (p *Printer) appendVerdict(dst []byte, e *audit.Event) []byte {
	v := verdictOf(e)
	color := colors[v]
	if !p.Color || color == "" {
		return appendBare(dst, v)
	}
	dst = append(dst, "\x1b["+color+"m"...)
	dst = appendBare(dst, v)
	return append(dst, "\x1b[0m"...)
}

func appendBody(dst []byte, e *audit.Event) []byte {
	switch {
	case e.Syscall != nil:
		return appendSyscall(dst, e.Syscall)
	case e.Receipt != nil:
		return appendReceipt(dst, e.Receipt)
	case e.Timing != nil:
		return appendTiming(dst, e.Timing)
	case e.ExecStart != nil:
		for i, word := range e.ExecStart.Argv {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = appendWord(dst, word)
		}
		if e.ExecStart.Truncated {
			dst = append(dst, " …"...)
		}
		return dst
	case e.Limit != nil:
		l := e.Limit
		return appendBare(dst, l.Resource+" "+l.Requested+" → "+l.Applied+" ("+l.Operation+", ceiling "+l.Ceiling+")")
	case e.OOM != nil:
		return appendOOM(dst, e.OOM)
	case e.Loss != nil:
		return appendLoss(dst, e.Loss)
	case e.Exit != nil:
		return appendExit(dst, e.Exit)
	case e.End != nil:
		return appendEnd(dst, e.End)
	}
	return dst
}

// bare tells whether an argument's value is shown as it is. What was peeked is the workload's own text, and
// quoted, but for the arguments whose text the supervisor makes of numbers that it peeked.
func bare(a *audit.Arg) bool {
	switch a.Name {
	case "flags", "mode", "resolve", "exit_signal", "effective", "permitted", "inheritable":
		return true
	case "addr":
		return !strings.HasPrefix(a.Value, "unix") // which has a path in it
	}
	return a.Evidence == audit.EvidenceRegister
}

func appendSyscall(dst []byte, s *audit.Syscall) []byte {
	dst = append(appendBare(dst, s.Syscall), '(')
	for i := range s.Args {
		a := &s.Args[i]
		if i > 0 {
			dst = append(dst, ", "...)
		}
		switch {
		case bare(a):
			dst = appendBare(dst, a.Value)
		case a.Name == "argv": // words that are quoted already
			dst = append(appendBare(append(dst, '['), a.Value), ']')
		default:
			dst = appendQuoted(dst, a.Value)
		}
		if a.Truncated {
			dst = append(dst, "…"...)
		}
	}
	dst = append(dst, ')')
	if s.Errno != "" {
		dst = appendBare(append(dst, "  "...), s.Errno)
	}
	if s.Origin != "" || s.RuleID != "" {
		rule := s.RuleID
		switch {
		case rule == "":
			rule = s.Origin
		case s.Origin != "" && !strings.HasPrefix(rule, s.Origin+"/"):
			rule = s.Origin + "/" + rule
		}
		dst = appendBare(append(dst, "  "...), rule)
	}
	if s.Count > 1 {
		dst = append(dst, "  ×"...)
		dst = strconv.AppendUint(dst, s.Count, 10)
		dst = append(dst, " until "...)
		dst = s.Until.UTC().AppendFormat(dst, "15:04:05.000")
	}
	return dst
}

func appendReceipt(dst []byte, r *audit.Receipt) []byte {
	if r.SeccompMode == 2 {
		dst = append(dst, "filter "...)
		dst = appendBare(dst, head(r.FilterDigest, shownDigest))
		dst = append(dst, " in force"...)
	} else {
		dst = append(dst, "no filter"...)
	}
	if r.NoNewPrivs {
		dst = append(dst, ", no new privileges"...)
	}
	for _, l := range r.Limits {
		dst = appendBare(append(dst, ", "...), l.Name)
		if l.Found == "" {
			dst = appendBare(append(dst, " not in force, asked "...), l.Asked)
		} else {
			dst = appendBare(append(dst, " ≤ "...), l.Found)
		}
	}
	return dst
}

func appendTiming(dst []byte, t *audit.Timing) []byte {
	for i, l := range t.Laps {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(appendBare(dst, l.Phase), ' ')
		dst = append(dst, l.Duration.Round(shownTime).String()...)
	}
	return dst
}

func appendOOM(dst []byte, o *audit.OOM) []byte {
	if o.Count > 0 {
		dst = strconv.AppendUint(dst, o.Count, 10)
		dst = append(dst, " killed"...)
	}
	if o.MemoryLimit > 0 {
		if o.Count > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, "memory ≤ "...)
		dst = strconv.AppendUint(dst, o.MemoryLimit, 10)
		dst = append(dst, " bytes"...)
	}
	return dst
}

func appendLoss(dst []byte, l *audit.Loss) []byte {
	dst = appendBare(dst, l.Reason)
	if l.Count > 0 {
		dst = strconv.AppendUint(append(dst, ", events missing: "...), l.Count, 10)
	}
	if l.Bytes > 0 {
		dst = strconv.AppendUint(append(dst, ", bytes cut: "...), l.Bytes, 10)
	}
	if l.OnLoss != "" {
		dst = appendBare(append(dst, ", "...), l.OnLoss)
	}
	if l.Detail != "" {
		dst = appendBare(append(dst, ": "...), l.Detail)
	}
	return dst
}

func appendExit(dst []byte, x *audit.Exit) []byte {
	dst = strconv.AppendUint(append(dst, "status "...), uint64(x.Status), 10)
	if x.Signal != "" {
		dst = appendBare(append(dst, ", "...), x.Signal)
	}
	if x.Cause != "" {
		dst = append(appendBare(append(dst, " ("...), x.Cause), ')')
	}
	return dst
}

func appendEnd(dst []byte, x *audit.End) []byte {
	dst = strconv.AppendUint(dst, x.Records, 10)
	dst = strconv.AppendUint(append(dst, " records, calls: "...), x.Calls, 10)
	dst = strconv.AppendUint(append(dst, ", denied: "...), x.Denied, 10)
	if x.Losses > 0 {
		dst = strconv.AppendUint(append(dst, ", losses: "...), x.Losses, 10)
		dst = strconv.AppendUint(append(dst, ", events missing: "...), x.Missing, 10)
	}
	return dst
}

// pad fills up to width columns behind start, counting a character as one column.
func pad(dst []byte, start, width int) []byte {
	for n := utf8.RuneCount(dst[start:]); n < width; n++ {
		dst = append(dst, ' ')
	}
	return dst
}

// head is the first n bytes of s, cut at a character's boundary.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
