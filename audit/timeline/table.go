// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// Table renders records as rows, each of which says all by itself, for sorting and searching. Columns have at least a usual width: rows
// are written as they come. Not safe for concurrent use.
type Table struct {
	Wide  bool // more columns
	begun bool
}

// column is one column of a table. The last one of a row has no width.
type column struct {
	head  string
	width int
	wide  bool // only in wide tables
	value func(dst []byte, r *record.Record) []byte
}

const rowTime = "2006-01-02T15:04:05.000Z"

var columns = []column{
	{"TIME", len(rowTime), false, func(dst []byte, r *record.Record) []byte { return r.Event.Time.UTC().AppendFormat(dst, rowTime) }},
	{"SEQ", 6, true, func(dst []byte, r *record.Record) []byte { return strconv.AppendUint(dst, r.Seq, 10) }},
	{"NODE", 12, true, func(dst []byte, r *record.Record) []byte { return appendCell(dst, r.Identity.Node) }},
	{"POD", whoWidth, false, func(dst []byte, r *record.Record) []byte {
		return appendCell(dst, r.Identity.Namespace+"/"+r.Identity.Pod+"["+r.Identity.Container+"]")
	}},
	{"PROFILE", 10, true, func(dst []byte, r *record.Record) []byte { return appendCell(dst, r.Identity.Profile) }},
	{"EXEC", shownExec, false, func(dst []byte, r *record.Record) []byte { return appendCell(dst, head(r.Event.Exec, shownExec)) }},
	{"PID", 7, false, appendPID},
	{"PPID", 7, true, ofCall(func(dst []byte, s *audit.Syscall) []byte { return strconv.AppendUint(dst, uint64(s.PPID), 10) })},
	{"UID", 5, true, ofCall(func(dst []byte, s *audit.Syscall) []byte { return strconv.AppendUint(dst, uint64(s.UID), 10) })},
	{"PROGRAM", 20, true, ofCall(func(dst []byte, s *audit.Syscall) []byte { return appendCell(dst, s.Exe) })},
	{"CLASS", 11, true, ofCall(func(dst []byte, s *audit.Syscall) []byte { return appendCell(dst, s.Class) })},
	{"VERDICT", verdictWidth, false, func(dst []byte, r *record.Record) []byte { return appendCell(dst, verdictOf(&r.Event)) }},
	{"WHAT", 0, false, func(dst []byte, r *record.Record) []byte { return appendBody(dst, &r.Event) }},
}

// Append appends the row of a record, with its newline, preceded by the heading in the first call.
func (t *Table) Append(dst []byte, r *record.Record) []byte {
	if !t.begun {
		t.begun = true
		dst = t.appendRow(dst, func(dst []byte, c *column) []byte { return append(dst, c.head...) })
	}
	return t.appendRow(dst, func(dst []byte, c *column) []byte { return c.value(dst, r) })
}

func (t *Table) appendRow(dst []byte, value func([]byte, *column) []byte) []byte {
	for i := range columns {
		c := &columns[i]
		if c.wide && !t.Wide {
			continue
		}
		start := len(dst)
		dst = value(dst, c)
		if c.width > 0 {
			dst = append(pad(dst, start, c.width), "  "...)
		}
	}
	return append(trimBlanks(dst), '\n')
}

func trimBlanks(dst []byte) []byte {
	for len(dst) > 0 && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// appendCell appends text that stands alone in a column: it has no blanks, and is never nothing.
func appendCell(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, '-')
	}
	if strings.ContainsRune(s, ' ') {
		return appendQuoted(dst, s)
	}
	return appendBare(dst, s)
}

func appendPID(dst []byte, r *record.Record) []byte {
	var pid uint32
	switch e := &r.Event; {
	case e.Syscall != nil:
		pid = e.Syscall.PID
	case e.Receipt != nil:
		pid = e.Receipt.PID
	case e.ExecStart != nil:
		pid = e.ExecStart.PID
	default:
		return append(dst, '-')
	}
	return strconv.AppendUint(dst, uint64(pid), 10)
}

func ofCall(value func([]byte, *audit.Syscall) []byte) func([]byte, *record.Record) []byte {
	return func(dst []byte, r *record.Record) []byte {
		if r.Event.Syscall == nil {
			return append(dst, '-')
		}
		return value(dst, r.Event.Syscall)
	}
}

// Body appends what a record says beside who, when and with which verdict: a line's last column.
func Body(dst []byte, e *audit.Event) []byte { return appendBody(dst, e) }
