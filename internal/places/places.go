// SPDX-License-Identifier: Apache-2.0

// Package places bounds how many may be served at a time, and how many of them for one party, so that no party keeps others out.
package places

import "sync"

// Places are those that there are. All fields are to be set before the first Enter, which is safe for concurrent use.
type Places struct {
	Total int // in all
	Each  int // of one party

	mu    sync.Mutex
	of    map[string]int
	taken int
}

// Enter takes a place for a party until leave is called, once. It does not block: without a free place ok is false.
func (p *Places) Enter(party string) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.Total || p.of[party] >= p.Each {
		return nil, false
	}
	if p.of == nil {
		p.of = map[string]int{}
	}
	p.taken++
	p.of[party]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		if p.of[party]--; p.of[party] == 0 {
			delete(p.of, party)
		}
	}, true
}

// Taken returns how many are.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
