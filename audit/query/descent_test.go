// SPDX-License-Identifier: Apache-2.0

package query

import (
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/stream"
)

func of(minutes int, pid, ppid uint32, exec string) audit.Event {
	e := call(minutes, "exec", audit.VerdictAllowed)
	e.Exec, e.Syscall.PID, e.Syscall.PPID = exec, pid, ppid
	return e
}

func TestProcess(t *testing.T) {
	root := t.TempDir()
	start := audit.Event{Time: at(0), Kind: audit.KindStart, Receipt: &audit.Receipt{PID: 10}}
	again := start
	again.Time = at(20)
	session := audit.Event{Time: at(5), Kind: audit.KindExec, Exec: "e1", ExecStart: &audit.ExecStart{PID: 30}}
	write(t, root, id("a", "p", "x"), stream.Options{SegmentBytes: 1},
		start,                // 1
		of(1, 10, 9, ""),     // 2
		of(2, 11, 10, ""),    // 3
		of(3, 12, 11, ""),    // 4
		of(4, 13, 99, ""),    // 5: its parent was never seen
		session,              // 6
		of(6, 30, 9, "e1"),   // 7
		of(7, 31, 30, "e1"),  // 8
		of(8, 12, 10, ""),    // 9: an orphan
		of(9, 40, 12, ""),    // 10
		of(10, 11, 30, "e1"), // 11: another process, by its session
		of(11, 50, 11, "e1"), // 12
		exit(12),             // 13
		again,                // 14
		of(21, 12, 10, ""),   // 15: of another instance
	)
	for _, tt := range []struct {
		name    string
		process Process
		filter  Filter
		last    int
		want    string
	}{
		{"none", Process{PID: 77}, Filter{}, All, ""},
		{"the first", Process{PID: 10}, Filter{}, All, "p/x:1 p/x:2 p/x:3 p/x:4 p/x:9 p/x:10 p/x:14 p/x:15"},
		{"that of one instance", Process{PID: 10, Seq: 14}, Filter{}, All, "p/x:14 p/x:15"},
		{"of a session", Process{PID: 30}, Filter{}, All, "p/x:6 p/x:7 p/x:8 p/x:11 p/x:12"},
		{"a session's by its record", Process{PID: 30, Seq: 6}, Filter{}, All, "p/x:6 p/x:7 p/x:8 p/x:11 p/x:12"},
		{"whichever had the number", Process{PID: 11}, Filter{}, All, "p/x:3 p/x:4 p/x:9 p/x:10 p/x:11 p/x:12"},
		{"who had it first", Process{PID: 11, Seq: 3}, Filter{}, All, "p/x:3 p/x:4 p/x:9 p/x:10"},
		{"who had it later", Process{PID: 11, Seq: 11}, Filter{}, All, "p/x:11 p/x:12"},
		{"who has no call of its own", Process{PID: 99}, Filter{}, All, "p/x:5"},
		{"and a time", Process{PID: 11, Seq: 3}, Filter{Since: at(8)}, All, "p/x:9 p/x:10"},
		{"and the last", Process{PID: 11, Seq: 3}, Filter{}, 1, "p/x:10"},
	} {
		f := tt.filter
		f.Process = tt.process
		if got, problems := read(t, root, f, Options{Last: tt.last}); got != tt.want || problems != nil {
			t.Errorf("%s: read %s, problems %v; want %s", tt.name, got, problems, tt.want)
		}
	}
}
