// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Units of a plot: time goes from 0 to wide, whatever the width of the window.
const (
	wide     = 10_000
	narrow   = 30 // the least that is drawn, so that it is seen
	barsHigh = 100
)

// scale places times on the axis that all plots share.
type scale struct {
	clock
	from, to int64
}

func newScale(from, to *time.Time) *scale {
	s := &scale{to: int64(time.Second)}
	if from != nil {
		s.from, s.to = nanos(*from), nanos(*to)
		s.days = s.from/int64(24*time.Hour) != s.to/int64(24*time.Hour)
	}
	margin := max((s.to-s.from)/80, int64(time.Millisecond))
	s.from, s.to = max(0, s.from-margin), s.to+margin
	return s
}

// x is the place of a time, in units.
func (s *scale) x(t int64) int {
	return int(math.Round(wide * min(1, max(0, float64(t-s.from)/float64(s.to-s.from)))))
}

// percent is the place of a time as an attribute of SVG.
func (s *scale) percent(t int64) string {
	return strconv.FormatFloat(float64(s.x(t))/(wide/100), 'f', 2, 64) + "%"
}

// day writes a time with its date.
func (s *scale) day(t int64) *Moment { return clock{days: true}.at(t) }

// piece is the place of a piece of time; it is never too narrow to be seen.
func (s *scale) piece(from, to int64) (x, width int) {
	x = s.x(from)
	width = max(narrow, s.x(to)-x)
	return min(x, wide-width), width
}

// plot is what the pod did in time.
type plot struct {
	FromMS, ToMS int64 // of the axis, since 1970
	Ticks        []tick
	Bars         []bar
	MostAllowed  string // calls of the highest bar, and how long a bar is
	MostRefused  string
	Width        string
	Lives        []life
	Sessions     []span
	Pressure     []mark
	Gaps         []span
}

type tick struct{ X, Label string }

// bar is the calls in a piece of time, in units. Zero height: none.
type bar struct {
	X, Width         int
	Allowed, Refused int
	AllowedTop       int
	Says             string
}

// life is the instances of a container.
type life struct {
	Name  Text
	Spans []span
	Marks []mark
	Says  string
}

// span is something that lasted.
type span struct {
	X, Width int
	Says     Text
	Class    string
}

// mark is something that happened at a moment.
type mark struct {
	X, Shape, Class string
	Says            Text
}

// Shapes of marks, as paths around their middle.
const (
	triangle = "M-5 -5H5L0 5Z"
	cross    = "M-6 -4L-4 -6L0 -2L4 -6L6 -4L2 0L6 4L4 6L0 2L-4 6L-6 4L-2 0Z"
	square   = "M-4 -6H4V6H-4Z"
	play     = "M-3 -6L6 0L-3 6Z"
)

func (r *Report) plot(s *scale) plot {
	p := plot{FromMS: s.from / 1e6, ToMS: s.to / 1e6, Ticks: s.ticks()}
	r.bars(&p, s)
	for _, c := range r.containers {
		p.Lives = append(p.Lives, c.life(s, r.named(c.number)))
	}
	for _, session := range r.sessions.kept {
		x, width := s.piece(session.from, session.to)
		p.Sessions = append(p.Sessions, span{x, width, Text{S: "exec session from " + s.at(session.from).Short + ": " + session.command.S}, "session"})
	}
	for _, g := range r.gaps.kept {
		from, to := g.after, g.at
		if from < 0 {
			from = max(0, to)
		}
		if to < 0 {
			to = from
		}
		x, width := s.piece(from, to)
		p.Gaps = append(p.Gaps, span{x, max(width, 3*narrow), Text{S: "gap: " + g.reason.S + ", " + many(g.count, "event") + " missing"}, "gap"})
	}
	return p
}

// bars draws calls by their square root: a single denial is seen beside a flood.
func (r *Report) bars(p *plot, s *scale) {
	if r.band == nil {
		return
	}
	var most, mostRefused uint64
	for _, c := range r.band.cells {
		most, mostRefused = max(most, c.allowed), max(mostRefused, c.denied+c.killed)
	}
	p.MostAllowed, p.MostRefused, p.Width = number(most), number(mostRefused), length(r.band.width)
	for i, c := range r.band.cells {
		begin := r.band.start + int64(i)*r.band.width
		at := s.at(begin).Short
		if c.limits > 0 {
			p.Pressure = append(p.Pressure, mark{s.percent(begin), triangle, "limit", Text{S: at + ": " + many(c.limits, "limit") + " lowered"}})
		}
		if c.ooms > 0 {
			p.Pressure = append(p.Pressure, mark{s.percent(begin), cross, "oom", Text{S: at + ": killed for want of memory, " + many(c.ooms, "record")}})
		}
		if c.allowed+c.denied+c.killed == 0 {
			continue
		}
		x, width := s.piece(begin, begin+r.band.width)
		b := bar{X: x, Width: width, Allowed: height(c.allowed, most), Refused: height(c.denied+c.killed, mostRefused)}
		b.AllowedTop = barsHigh - b.Allowed
		b.Says = fmt.Sprintf("%s, %s: %s allowed, %s denied, %s killed", at, length(r.band.width), number(c.allowed), number(c.denied), number(c.killed))
		p.Bars = append(p.Bars, b)
	}
}

// height is that of a bar; at least a few units if there is anything.
func height(n, most uint64) int {
	if n == 0 {
		return 0
	}
	return max(6, int(barsHigh*math.Sqrt(float64(n)/float64(most))))
}

func (c *container) life(s *scale, name Text) life {
	l := life{Name: name, Says: many(uint64(len(c.instances))+c.more, "instance")}
	for _, i := range c.instances {
		x, width := s.piece(i.from, i.to)
		l.Spans = append(l.Spans, span{x, width, Text{S: "instance " + short(i.id.ContainerID).S + " from " + s.at(i.from).Short}, "life"})
		if i.receipt != nil {
			l.Marks = append(l.Marks, mark{s.percent(i.from), play, "start", Text{S: s.at(i.from).Short + ": start"}})
		}
		if i.exit != nil {
			l.Marks = append(l.Marks, mark{s.percent(i.exited), square, "exit", Text{S: s.at(i.exited).Short + ": exit, " + i.exit.S}})
		}
	}
	return l
}

// steps are the distances that ticks can have.
var steps = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 2 * 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour, 3650 * 24 * time.Hour, 36500 * 24 * time.Hour,
}

const maxTicks = 8

func (s *scale) ticks() (ticks []tick) {
	step := int64(steps[len(steps)-1])
	for _, d := range steps {
		if (s.to-s.from)/int64(d) <= maxTicks {
			step = int64(d)
			break
		}
	}
	form := "15:04"
	switch {
	case step < int64(time.Second):
		form = "15:04:05.000"
	case step < int64(time.Minute):
		form = "15:04:05"
	case step >= int64(24*time.Hour):
		form = time.DateOnly
	}
	for t := s.from - s.from%step + step; t < s.to; t += step {
		ticks = append(ticks, tick{s.percent(t), time.Unix(0, t).UTC().Format(form)})
	}
	return ticks
}

// path draws pieces of time between two heights, in units.
func (s *scale) path(pieces [][2]int64, top, bottom int) string {
	var b strings.Builder
	for _, piece := range pieces {
		x, width := s.piece(piece[0], piece[1])
		fmt.Fprintf(&b, "M%d %dh%dv%dh-%dz", x, top, width, bottom-top, width)
	}
	return b.String()
}
