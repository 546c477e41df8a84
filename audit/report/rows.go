// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strconv"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/tree"
)

// Bounds of the trees of a page.
const (
	maxProcesses = 400 // that have a lane, of all trees together
	maxDepth     = 12  // of rows in rows; what is deeper says so
	openDepth    = 3   // from which on rows are shut at first, where there are many
	fewProcesses = 60
	laneHigh     = 28
	maxDid       = 8 // sorts of calls that a row names
)

// treeView is the processes of an instance of a container.
type treeView struct {
	Container, ID Text
	From          *Moment
	Rows          []*row
}

// row is a process.
type row struct {
	PID       uint32
	Process   string // PID@SEQ, which other commands take
	Depth     int    // 0 to maxDepth
	Deep      int    // how deep it is, if that is more
	Between   int    // processes above it that are not shown
	Program   Text
	Command   *Text
	Session   *Text
	Asked     *Text // a program that it asked for last
	Seen      bool
	UID       uint32
	Did       []did
	Refused   string // how many calls were denied or killed; empty: none
	Says      string // of the lane
	X, Width  int
	Ended     bool
	EndX      int
	Programs  []span
	Marks     []laneMark
	Open      bool
	Rows      []*row
	Collapsed int // rows below it
}

// did is how often a process made calls of a sort.
type did struct {
	What, Class string
	Count       string
}

// laneMark draws the deeds of one sort.
type laneMark struct{ Class, Path string }

// lanesOf says where in a lane the deeds of a sort are. What was denied goes from top to bottom.
var lanesOf = []struct {
	bit         deeds
	class       string
	top, bottom int
}{
	{ran, "ran", 2, 7}, {files, "files", 8, 13}, {network, "net", 14, 19}, {privilege, "priv", 20, 25}, {others, "other", 12, 16},
	{refused, "refused", 0, laneHigh},
}

func (r *Report) trees(s *scale) (out []treeView, hidden string) {
	trees := r.forest.Trees()
	left := maxProcesses
	processes, calls := r.forest.Hidden()
	several := 0
	for _, t := range trees {
		several += len(t.All())
	}
	for n, t := range trees {
		all := t.All()
		shown := chosen(all, r.lanes, left/(len(trees)-n))
		left -= len(shown)
		if len(shown) > 0 {
			tv := treeView{Container: text(t.Identity.Container), ID: short(t.Identity.ContainerID), From: s.at(nanos(t.From))}
			tv.Rows = r.rows(s, shown, several <= fewProcesses)
			out = append(out, tv)
		}
		have := map[*tree.Process]bool{}
		for _, p := range shown {
			have[p] = true
		}
		for _, p := range all {
			if have[p] {
				continue
			}
			processes++
			if l := r.lanes[p]; l != nil {
				calls += l.calls
			}
		}
	}
	if processes > 0 {
		hidden = many(processes, "process") + " with " + many(calls, "call")
	}
	return out, hidden
}

// rows makes rows of processes, each below the nearest one above it that is shown.
func (r *Report) rows(s *scale, shown []*tree.Process, few bool) (top []*row) {
	byProcess := make(map[*tree.Process]*row, len(shown))
	for _, p := range shown {
		byProcess[p] = r.row(s, p)
	}
	for _, p := range shown {
		mine := byProcess[p]
		above := p.Parent
		for ; above != nil && byProcess[above] == nil; above = above.Parent {
			mine.Between++
		}
		if above == nil {
			mine.Between = 0
			top = append(top, mine)
			continue
		}
		byProcess[above].Rows = append(byProcess[above].Rows, mine)
	}
	top, _ = arrange(top, 0, few)
	return top
}

// arrange says of rows how deep they are, which are open, and how many each has below it. What is deeper than maxDepth stands behind
// what it is below. It tells too whether anything in them was denied.
func arrange(rows []*row, depth int, few bool) (list []*row, refused bool) {
	for _, w := range rows {
		below, refusedBelow := arrange(w.Rows, depth+1, few)
		list = append(list, w)
		w.Depth = min(depth, maxDepth)
		if depth > maxDepth {
			w.Deep = depth
		}
		if w.Rows = below; depth >= maxDepth {
			w.Rows = nil
			list = append(list, below...)
		}
		for _, child := range w.Rows {
			w.Collapsed += 1 + child.Collapsed
		}
		w.Open = few || depth < openDepth || refusedBelow
		refused = refused || refusedBelow || w.Refused != ""
	}
	return list, refused
}

func (r *Report) row(s *scale, p *tree.Process) *row {
	w := &row{PID: p.PID, Process: strconv.FormatUint(uint64(p.PID), 10) + "@" + strconv.FormatUint(p.Seq, 10), Seen: p.Seen, UID: p.UID}
	if n := len(p.Programs); n > 0 {
		w.Program = text(p.Programs[n-1])
	}
	if p.Command != "" {
		t := text(p.Command)
		w.Command = &t
	}
	if p.Session != nil {
		t := words(p.Session, false)
		w.Session = &t
	}
	if p.Asked != "" {
		t := text(p.Asked)
		w.Asked = &t
	}
	for i, sum := range p.Sums {
		if i == maxDid {
			w.Did = append(w.Did, did{"further sorts", "other", number(uint64(len(p.Sums) - i))})
			break
		}
		what, class := sum.Class, classOf(deedOf(sum.Class))
		if sum.Verdict != audit.VerdictAllowed && sum.Verdict != "" {
			what, class = sum.Name+" "+string(sum.Verdict), "refused"
		}
		w.Did = append(w.Did, did{text(what).S, class, number(sum.Count)})
	}
	l := r.lanes[p]
	if l == nil {
		w.Says = "no call of it is here"
		return w
	}
	w.draw(s, l)
	return w
}

func (w *row) draw(s *scale, l *lane) {
	if l.refused > 0 {
		w.Refused = number(l.refused)
	}
	w.Says = s.at(l.from).Short + " to " + s.at(l.to).Short + ", " + many(l.calls, "call")
	if l.refused > 0 {
		w.Says += ", denied or killed: " + w.Refused
	}
	w.X, w.Width = s.piece(l.from, l.to)
	w.Ended, w.EndX = l.ended, w.X+w.Width
	for i, c := range l.changes {
		until := l.to
		if i+1 < len(l.changes) {
			until = l.changes[i+1].at
		}
		x, width := s.piece(c.at, until)
		class := "even"
		if i%2 == 1 {
			class = "odd"
		}
		w.Programs = append(w.Programs, span{x, width, text("from " + s.at(c.at).Short + ": " + c.program), class})
	}
	for _, slot := range lanesOf {
		if path := s.path(l.bands(slot.bit), slot.top, slot.bottom); path != "" {
			w.Marks = append(w.Marks, laneMark{slot.class, path})
		}
	}
}

// classOf is the class of the page's style for a sort of deeds.
func classOf(bit deeds) string {
	for _, slot := range lanesOf {
		if slot.bit == bit {
			return slot.class
		}
	}
	return "other"
}
