// SPDX-License-Identifier: Apache-2.0

// Package lineage says which process of a stream descends from which, as far as the stream tells: each record of a call has the
// number of its process and of that one's parent, and nothing says when a process begins or ends.
//
// So a process that makes no audited call is not known, nor are those that descend from it alone. One whose parent has ended has another
// parent from then on: the first process of its pid namespace, or one above its parent that asked for it (PR_SET_CHILD_SUBREAPER).
// And numbers are used again, in the end.
package lineage

import "strings"

const (
	generation = 1 << 16 // processes in each of the two generations that a Table keeps
	maxSteps   = 256     // parents that are looked at, at most
)

// Table has the processes of one container, by number, each with a value of its caller's. It keeps those that were seen last: 65536
// at least, 131072 at most. Its zero value is empty. Not safe for concurrent use.
type Table[T any] struct {
	young, old map[uint32]*entry[T]
	first      uint32 // number of the container's first process; 0: not known
}

type entry[T any] struct {
	parent uint32
	exec   string
	value  T
}

// Begin forgets all processes: the container begins anew, with a first process of this number.
func (t *Table[T]) Begin(first uint32) { *t = Table[T]{first: first} }

// See takes note of process pid of an exec session, whose parent is ppid, or 0 if that is not known, and returns the process's value,
// which may be changed. fresh tells that the process is a new one: the number was not known, or it is another process's by now, as
// what is known of its parents shows.
func (t *Table[T]) See(pid, ppid uint32, exec string) (value *T, fresh bool) {
	e := t.get(pid)
	if e != nil && e.exec == exec && t.mayBecome(e.parent, ppid) {
		if ppid != 0 {
			e.parent = ppid
		}
		return &e.value, false
	}
	e = &entry[T]{parent: ppid, exec: strings.Clone(exec)}
	t.put(pid, e)
	return &e.value, true
}

// Of returns the value of the process that has the number, or nil if none is known.
func (t *Table[T]) Of(pid uint32) *T {
	if e := t.get(pid); e != nil {
		return &e.value
	}
	return nil
}

// mayBecome tells whether a process whose parent was the one can have the other as parent: when the one has ended. Only a process that is
// known, and that stands neither above the one nor first, cannot.
func (t *Table[T]) mayBecome(was, is uint32) bool {
	if was == is || was == 0 || is == 0 || is == t.first || t.get(is) == nil {
		return true
	}
	for range maxSteps {
		e := t.get(was)
		if e == nil {
			return false
		}
		if was = e.parent; was == is {
			return true
		}
	}
	return false
}

func (t *Table[T]) get(pid uint32) *entry[T] {
	if e := t.young[pid]; e != nil {
		return e
	}
	e := t.old[pid]
	if e != nil {
		t.put(pid, e)
	}
	return e
}

func (t *Table[T]) put(pid uint32, e *entry[T]) {
	if len(t.young) >= generation {
		t.old, t.young = t.young, nil
	}
	if t.young == nil {
		t.young = map[uint32]*entry[T]{}
	}
	t.young[pid] = e
}
