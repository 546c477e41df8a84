// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"metsuke.dev/metsuke/audit/record"
)

// Bounds of a top.
const (
	maxNames = 1024
	maxName  = 512 // bytes
)

// top counts how often which names occur, and keeps those that occur most, in constant memory: the algorithm Space-Saving (Metwally,
// Agrawal, El Abbadi 2005). A name that is not kept takes the place of the rarest one, with its count, which is how much the new one's
// count may be too high. A name that makes up more than a thousandth of all is always there.
type top struct {
	byName map[string]*counted
	rarest rarestFirst
}

type counted struct {
	name  string
	count uint64
	over  uint64 // by which count may be too high
	at    int    // in the heap
}

func (t *top) add(name string, n uint64) {
	name = name[:min(len(name), maxName)]
	if c := t.byName[name]; c != nil {
		c.count += n
		heap.Fix(&t.rarest, c.at)
		return
	}
	if t.byName == nil {
		t.byName = map[string]*counted{}
	}
	name = strings.Clone(name)
	if len(t.rarest) < maxNames {
		c := &counted{name: name, count: n}
		t.byName[name] = c
		heap.Push(&t.rarest, c)
		return
	}
	c := t.rarest[0]
	delete(t.byName, c.name)
	c.name, c.over = name, c.count
	c.count += n
	t.byName[name] = c
	heap.Fix(&t.rarest, 0)
}

// first returns the n names that occur most; of equal ones those first that are first in the alphabet.
func (t *top) first(n int) []Name {
	names := make([]Name, 0, len(t.rarest))
	for _, c := range t.rarest {
		names = append(names, Name{Name: record.Text(c.name), Count: c.count, Over: c.over})
	}
	slices.SortFunc(names, func(a, b Name) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return names[:min(n, len(names))]
}

// rarestFirst is a heap.
type rarestFirst []*counted

func (h rarestFirst) Len() int           { return len(h) }
func (h rarestFirst) Less(i, j int) bool { return h[i].count < h[j].count }

func (h rarestFirst) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *rarestFirst) Push(x any) {
	c := x.(*counted)
	c.at = len(*h)
	*h = append(*h, c)
}

func (h *rarestFirst) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
}
