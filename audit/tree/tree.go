// SPDX-License-Identifier: Apache-2.0

// Package tree makes of records the trees of the processes that they are of, with what each process did. How far processes can be told
// apart, and what is not known of them, says package lineage.
package tree

import (
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/lineage"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/stream"
)

// Bounds of what is kept.
const (
	DefaultProcesses = 10_000 // of all trees together; about 2 KiB each at the most that usual ones come to
	maxPrograms      = 8      // of a process
	maxSums          = 24     // of a process
	maxText          = 512    // bytes of a path, a command, a name
)

// Forest is the trees of the instances of containers. Its methods are not safe for concurrent use.
type Forest struct {
	Processes int // how many are kept at most

	trees    []*Tree
	byStream map[string]*growing
	kept     int
	hidden   uint64 // processes that are not kept
	calls    uint64 // of those
}

// Tree is the processes of one instance of a container.
type Tree struct {
	Identity audit.Identity
	From, To time.Time

	all []*Process // in the order in which they were seen first
}

// All returns the processes in the order in which they were seen first.
func (t *Tree) All() []*Process { return t.all }

// Roots returns the processes without a parent, in the order in which they were seen first.
func (t *Tree) Roots() (roots []*Process) {
	for _, p := range t.all {
		if p.Parent == nil {
			roots = append(roots, p)
		}
	}
	return roots
}

// Process is one process.
type Process struct {
	PID      uint32
	Seq      uint64 // of its first record; of a parent that made no call, that of a child's
	Parent   *Process
	Children []*Process
	Exec     string   // id of the exec session that it belongs to
	Session  []string // command of the session that it is the first process of
	First    bool     // it is the container's first process
	Seen     bool     // it made a call, or a receipt or a session's begin names it
	UID      uint32
	Programs []string // paths of what it ran, in order, as the kernel tells them
	Command  string   // the words that it was executed with last, as its caller showed them
	Asked    string   // a path that it asked to execute since; whether it does, no record says
	Sums     []Sum

	asked string // the words that go with Asked
}

// Sum is how often calls were made.
type Sum struct {
	Class   string
	Verdict audit.Verdict
	Name    string // of the call, if it was denied or killed
	Count   uint64
}

// growing is the tree that a stream's records belong to now.
type growing struct {
	tree  *Tree
	table lineage.Table[*Process]
}

// Add takes a record of a stream in, and returns the process that it is of: nil if it is of none, or of one that is not kept. Nothing of
// the record is kept but copies.
func (f *Forest) Add(r *record.Record, of stream.Stream) (p *Process) {
	g := f.growing(r, of)
	e := &r.Event
	g.tree.To = e.Time
	switch {
	case e.Receipt != nil:
		if p = f.see(g, e.Receipt.PID, 0, r); p != nil {
			p.First = true
		}
	case e.ExecStart != nil:
		if p = f.see(g, e.ExecStart.PID, 0, r); p != nil && p.Session == nil {
			p.Session = words(e.ExecStart.Argv)
		}
	case e.Syscall != nil:
		if p = f.see(g, e.Syscall.PID, e.Syscall.PPID, r); p == nil {
			f.calls += max(1, e.Syscall.Count)
			return nil
		}
		f.join(g, p, e.Syscall.PPID, r)
		p.add(e.Syscall)
	}
	return p
}

// Trees returns the trees that have processes, in the order in which they began.
func (f *Forest) Trees() []*Tree { return f.trees }

// Hidden returns how many processes are not kept (a number that is used again counts again), and how many calls they made.
func (f *Forest) Hidden() (processes, calls uint64) { return f.hidden, f.calls }

// growing returns the tree of the record's instance. It begins anew with a receipt, or with another instance's record, when what is
// looked at has no receipt.
func (f *Forest) growing(r *record.Record, of stream.Stream) *growing {
	g := f.byStream[of.Path]
	if g != nil && r.Event.Receipt == nil && g.tree.Identity.ContainerID == r.Identity.ContainerID {
		return g
	}
	g = &growing{tree: &Tree{Identity: own(r.Identity), From: r.Event.Time}}
	if r.Event.Receipt != nil {
		g.table.Begin(r.Event.Receipt.PID)
	}
	if f.byStream == nil {
		f.byStream = map[string]*growing{}
	}
	f.byStream[of.Path] = g
	return g
}

func own(id audit.Identity) audit.Identity {
	for _, s := range []*string{&id.Node, &id.Namespace, &id.Pod, &id.PodUID, &id.Container, &id.ContainerID, &id.Profile, &id.ProfileDigest} {
		*s = strings.Clone(*s)
	}
	return id
}

// see returns the process of a record; nil if there is no room for it.
func (f *Forest) see(g *growing, pid, ppid uint32, r *record.Record) *Process {
	p, fresh := g.table.See(pid, ppid, r.Event.Exec)
	if fresh {
		*p = f.plant(g.tree, pid, r)
	}
	if *p != nil {
		(*p).Seen = true
	}
	return *p
}

func (f *Forest) plant(t *Tree, pid uint32, r *record.Record) *Process {
	most := f.Processes
	if most == 0 {
		most = DefaultProcesses
	}
	if f.kept >= most {
		f.hidden++
		return nil
	}
	f.kept++
	if len(t.all) == 0 {
		f.trees = append(f.trees, t)
	}
	p := &Process{PID: pid, Seq: r.Seq, Exec: strings.Clone(r.Event.Exec)}
	t.all = append(t.all, p)
	return p
}

// join puts a process below its parent, if it has none yet: it keeps the one that it had first. A parent that made no call is made up.
func (f *Forest) join(g *growing, p *Process, ppid uint32, r *record.Record) {
	if p.Parent != nil || p.First || p.Session != nil || ppid == 0 {
		return
	}
	parent := g.table.Of(ppid)
	if parent == nil {
		parent, _ = g.table.See(ppid, 0, r.Event.Exec)
		*parent = f.plant(g.tree, ppid, r)
	}
	if *parent == nil || (*parent).descendsFrom(p) {
		return
	}
	p.Parent = *parent
	p.Parent.Children = append(p.Parent.Children, p)
}

func (p *Process) descendsFrom(above *Process) bool {
	for ; p != nil; p = p.Parent {
		if p == above {
			return true
		}
	}
	return false
}

// add takes a call in.
func (p *Process) add(c *audit.Syscall) {
	p.UID = c.UID
	p.ran(c.Exe)
	sum := Sum{Class: c.Class, Verdict: c.Verdict}
	if c.Verdict != audit.VerdictAllowed {
		sum.Name = c.Syscall
	}
	p.count(sum, max(1, c.Count))
	if c.Verdict != audit.VerdictAllowed || c.Syscall != "execve" && c.Syscall != "execveat" {
		return
	}
	p.Asked, p.asked = "", ""
	for i := range c.Args {
		switch a := &c.Args[i]; {
		case a.Name == "path" && a.IsPath():
			p.Asked = cut(a.Value)
		case a.Name == "argv" && a.Evidence != audit.EvidenceRegister:
			p.asked = cut(a.Value)
		}
	}
}

// ran takes note of the program that the process runs in its newest call. That it is another one than before, or the one that it asked
// for, shows that what it asked for was executed; else it was not.
func (p *Process) ran(exe string) {
	exe = exe[:min(len(exe), maxText)]
	if exe == "" {
		return
	}
	n := len(p.Programs)
	another := n == 0 || p.Programs[n-1] != exe
	switch {
	case another && n < maxPrograms:
		p.Programs = append(p.Programs, strings.Clone(exe))
	case another:
		p.Programs[n-1] = strings.Clone(exe)
	}
	if another && n > 0 || exe == p.Asked {
		p.Command = p.asked
	}
	p.Asked, p.asked = "", ""
}

func (p *Process) count(sum Sum, n uint64) {
	for i := range p.Sums {
		if s := &p.Sums[i]; s.Class == sum.Class && s.Verdict == sum.Verdict && s.Name == sum.Name {
			s.Count += n
			return
		}
	}
	if len(p.Sums) >= maxSums {
		p.Sums[maxSums-1] = Sum{Class: "(other)", Count: p.Sums[maxSums-1].Count + n}
		return
	}
	p.Sums = append(p.Sums, Sum{cut(sum.Class), audit.Verdict(cut(string(sum.Verdict))), cut(sum.Name), n})
}

func words(argv []string) []string {
	out := []string{}
	for _, word := range argv[:min(len(argv), 32)] {
		out = append(out, cut(word))
	}
	return out
}

// cut returns a copy of s, or of its beginning.
func cut(s string) string { return strings.Clone(s[:min(len(s), maxText)]) }
