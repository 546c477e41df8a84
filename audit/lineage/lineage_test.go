// SPDX-License-Identifier: Apache-2.0

package lineage

import "testing"

// call is a call as a record shows it, and which process it is: the how many-eth that was fresh.
type call struct {
	pid, ppid uint32
	exec      string
	want      int
}

func TestSee(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first uint32
		calls []call
	}{
		{"by number", 1, []call{{1, 0, "", 1}, {5, 1, "", 2}, {1, 0, "", 1}, {5, 1, "", 2}}},
		{"orphan goes to the first", 1, []call{{1, 0, "", 1}, {5, 1, "", 2}, {6, 5, "", 3}, {6, 1, "", 3}}},
		{"orphan goes to somebody unknown", 1, []call{{6, 5, "", 1}, {6, 99, "", 1}}},
		{"orphan goes to a subreaper above it", 1, []call{{4, 1, "", 1}, {5, 4, "", 2}, {6, 5, "", 3}, {6, 4, "", 3}}},
		{"another's child has the number now", 1, []call{{4, 1, "", 1}, {5, 1, "", 2}, {6, 5, "", 3}, {6, 4, "", 4}, {6, 4, "", 4}}},
		{"another session has the number now", 1, []call{{6, 5, "a", 1}, {6, 5, "b", 2}, {6, 5, "b", 2}}},
		{"parent was not known", 1, []call{{4, 1, "", 1}, {5, 0, "", 2}, {6, 5, "", 3}, {5, 4, "", 2}, {5, 0, "", 2}}},
		{"parents in a circle", 1, []call{{5, 6, "", 1}, {6, 5, "", 2}, {7, 6, "", 3}, {8, 1, "", 4}, {7, 8, "", 5}}},
	} {
		var table Table[int]
		table.Begin(tt.first)
		made := 0
		for i, c := range tt.calls {
			value, fresh := table.See(c.pid, c.ppid, c.exec)
			if fresh {
				made++
				*value = made
			}
			if *value != c.want {
				t.Errorf("%s: call %d is of process %d, want %d", tt.name, i, *value, c.want)
			}
		}
	}
}

// What is kept is bounded; what was seen last is there.
func TestBounded(t *testing.T) {
	var table Table[uint32]
	table.Begin(1)
	for pid := uint32(2); pid < 5*generation; pid++ {
		value, _ := table.See(pid, pid-1, "")
		*value = pid
		if v := table.Of(2); v == nil || *v != 2 {
			t.Fatalf("what is looked at all the time was forgotten at %d", pid)
		}
	}
	if n := len(table.young) + len(table.old); n > 2*generation {
		t.Errorf("%d processes are kept", n)
	}
	if v := table.Of(5*generation - 1); v == nil || *v != 5*generation-1 {
		t.Error("the newest is not known")
	}
	if table.Of(3) != nil {
		t.Error("the oldest is kept for ever")
	}
	table.Begin(1)
	if table.Of(2) != nil {
		t.Error("a container that begins anew has processes")
	}
}
