// SPDX-License-Identifier: Apache-2.0

package report

import "time"

// A strip is what happened in time, in cells of equal width. It has a bounded number of cells: when there are too many, each two become
// one. So nothing has to be known in advance of how long it will be.
type strip[T any] struct {
	most  int // cells
	merge func(into *T, cell T)

	start, width int64 // nanoseconds since 1970; start is a multiple of width
	cells        []T
}

// finest is the width of cells in the beginning.
const finest = int64(time.Millisecond)

// at returns the cell of a time, which must not be negative. It is valid until the next call.
func (s *strip[T]) at(t int64) *T {
	if len(s.cells) == 0 {
		s.width = finest
		s.start = t - t%s.width
		s.cells = make([]T, 1)
	}
	for {
		begin := t - t%s.width
		before := max(0, (s.start-begin)/s.width)
		after := max(0, (begin-s.start)/s.width-int64(len(s.cells))+1)
		if int64(len(s.cells))+before+after > int64(s.most) {
			s.double()
			continue
		}
		if before > 0 {
			s.cells = append(make([]T, before, int(before)+len(s.cells)), s.cells...)
			s.start = begin
		}
		s.cells = append(s.cells, make([]T, after)...)
		return &s.cells[(begin-s.start)/s.width]
	}
}

// double makes one cell of each two.
func (s *strip[T]) double() {
	odd := s.start / s.width % 2
	half := make([]T, (int64(len(s.cells))+odd+1)/2)
	for i, cell := range s.cells {
		s.merge(&half[(int64(i)+odd)/2], cell)
	}
	s.cells = half
	s.start -= odd * s.width
	s.width *= 2
}

// nanos is a time as nanoseconds since 1970, as far as it is between 1970 and 2200: what copies of streams say is anything.
func nanos(t time.Time) int64 {
	switch {
	case t.Year() < 1970:
		return 0
	case t.Year() >= 2200:
		return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	}
	return t.UnixNano()
}
