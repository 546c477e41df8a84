// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit/lineage"
	"metsuke.dev/metsuke/audit/record"
)

// Process is a process of a container, by what its records say. Its zero value is any.
type Process struct {
	PID uint32
	Seq uint64 // of a record, to tell it from others that had its number before; 0: whichever had it
}

// ParseProcess reads PID or PID@SEQ.
func ParseProcess(text string) (Process, error) {
	pid, seq, has := strings.Cut(text, "@")
	n, err := strconv.ParseUint(pid, 10, 32)
	p := Process{PID: uint32(n)}
	if err == nil && has {
		p.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil || n == 0 || has && p.Seq == 0 {
		return Process{}, errors.New("must be the number of a process, or PID@SEQ with the number of one of its records")
	}
	return p, nil
}

// String returns what ParseProcess reads; nothing for the zero value.
func (p Process) String() string {
	switch {
	case p.PID == 0:
		return ""
	case p.Seq == 0:
		return strconv.FormatUint(uint64(p.PID), 10)
	}
	return fmt.Sprintf("%d@%d", p.PID, p.Seq)
}

// descent tells of one stream which records are of a process or of those that descend from it. It has to see each record, in order.
type descent struct {
	root  Process
	table lineage.Table[bool] // whether it is one of them
}

// has takes note of a record, and tells whether it is of one of the processes.
func (d *descent) has(r *record.Record) bool {
	switch e := &r.Event; {
	case e.Receipt != nil:
		d.table.Begin(e.Receipt.PID)
		return d.see(e.Receipt.PID, 0, "", r.Seq)
	case e.ExecStart != nil:
		return d.see(e.ExecStart.PID, 0, e.Exec, r.Seq)
	case e.Syscall != nil:
		return d.see(e.Syscall.PID, e.Syscall.PPID, e.Exec, r.Seq)
	}
	return false
}

// see takes note of a process, whose parent is 0 if it is not known.
func (d *descent) see(pid, ppid uint32, exec string, seq uint64) bool {
	member, fresh := d.table.See(pid, ppid, exec)
	if fresh {
		if parent := d.table.Of(ppid); parent != nil {
			*member = *parent
		} else { // it made no call yet
			*member = ppid == d.root.PID && d.root.Seq == 0
		}
	}
	if pid == d.root.PID && (d.root.Seq == 0 || seq == d.root.Seq) {
		*member = true
	}
	return *member
}
