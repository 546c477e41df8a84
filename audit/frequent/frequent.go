// SPDX-License-Identifier: Apache-2.0

// Package frequent finds which of many names occur most, in constant memory: the algorithm Space-Saving (Metwally, Agrawal, El Abbadi
// 2005).
package frequent

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
)

// Bounds of a Table.
const (
	MaxNames = 1024
	MaxName  = 512 // bytes; longer names are cut
)

// Table counts names, each with a value of its caller's, and keeps those that occur most. A name that is not kept takes the place of the
// rarest one, with its count, which is how much the new one's count may be too high. A name that makes up more than a thousandth of all is
// always there. Its zero value is empty. Not safe for concurrent use.
type Table[V any] struct {
	byName map[string]*Item[V]
	rarest rarestFirst[V]
	full   bool
}

// Item is a name that is kept.
type Item[V any] struct {
	Name  string
	Count uint64
	Over  uint64 // by which Count may be too high
	Value V      // the zero value of a name that has just been taken in

	at int // in the heap
}

// Add counts a name n times more, and returns its item, which is valid until the next call.
func (t *Table[V]) Add(name string, n uint64) *Item[V] {
	name = name[:min(len(name), MaxName)]
	if c := t.byName[name]; c != nil {
		c.Count += n
		heap.Fix(&t.rarest, c.at)
		return c
	}
	if t.byName == nil {
		t.byName = map[string]*Item[V]{}
	}
	name = strings.Clone(name)
	if len(t.rarest) < MaxNames {
		c := &Item[V]{Name: name, Count: n}
		t.byName[name] = c
		heap.Push(&t.rarest, c)
		return c
	}
	t.full = true
	c := t.rarest[0]
	delete(t.byName, c.Name)
	*c = Item[V]{Name: name, Count: c.Count + n, Over: c.Count}
	t.byName[name] = c
	heap.Fix(&t.rarest, 0)
	return c
}

// Full tells whether there were more names than are kept.
func (t *Table[V]) Full() bool { return t.full }

// Items returns the items that are kept, those first that occur most; of equal ones those that are first in the alphabet.
func (t *Table[V]) Items() []*Item[V] {
	items := slices.Clone([]*Item[V](t.rarest))
	slices.SortFunc(items, func(a, b *Item[V]) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return items
}

// rarestFirst is a heap.
type rarestFirst[V any] []*Item[V]

func (h rarestFirst[V]) Len() int           { return len(h) }
func (h rarestFirst[V]) Less(i, j int) bool { return h[i].Count < h[j].Count }

func (h rarestFirst[V]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *rarestFirst[V]) Push(x any) {
	c := x.(*Item[V])
	c.at = len(*h)
	*h = append(*h, c)
}

func (h *rarestFirst[V]) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
}
