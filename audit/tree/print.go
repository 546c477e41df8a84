// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/terminal"
)

// maxIndent is the depth from which on lines are indented no further, and say how deep they are.
const maxIndent = 24

// Print writes the trees for people.
func (f *Forest) Print(w io.Writer) error {
	out := &terminal.Printer{W: w}
	for i, t := range f.trees {
		if i > 0 {
			out.F("\n")
		}
		id := t.Identity
		out.F("%s  container %.12s  %s to %s UTC\n", timeline.Escape(id.Namespace+"/"+id.Pod+"["+id.Container+"]"), timeline.Escape(id.ContainerID),
			t.From.UTC().Format(time.DateTime), t.To.UTC().Format(time.DateTime))
		roots := t.Roots()
		for i, p := range roots {
			printProcess(out, p, "", i == len(roots)-1, 0)
		}
	}
	if len(f.trees) == 0 {
		out.F("no processes\n")
	}
	if f.hidden > 0 {
		out.F("\nNot shown: %d processes, with %d calls. --processes shows more.\n", f.hidden, f.calls)
	}
	return out.Err
}

func printProcess(out *terminal.Printer, p *Process, indent string, last bool, depth int) {
	branch, below := "├─ ", "│  "
	if last {
		branch, below = "└─ ", "   "
	}
	deep := ""
	if depth > maxIndent {
		deep = fmt.Sprintf("(%d deep) ", depth)
	}
	out.F("%s%s%s%s\n", indent, branch, deep, p.line())
	if depth < maxIndent {
		indent += below
	}
	for i, child := range p.Children {
		if out.Err != nil {
			return
		}
		printProcess(out, child, indent, i == len(p.Children)-1, depth+1)
	}
}

// line says of a process what it ran and did.
func (p *Process) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", p.PID)
	switch {
	case p.Session != nil:
		fmt.Fprintf(&b, "  exec %.8s: %s", timeline.Escape(p.Exec), timeline.Escape(strings.Join(p.Session, " ")))
	case !p.Seen:
		b.WriteString("  (no call of it is here)")
	}
	for i, program := range p.Programs {
		if i > 0 {
			b.WriteString(" →")
		}
		b.WriteString(" " + timeline.Escape(program))
	}
	if p.Command != "" {
		b.WriteString(" [" + timeline.Escape(p.Command) + "]")
	}
	if p.Asked != "" {
		b.WriteString(" → " + timeline.Escape(p.Asked) + "?")
		if p.asked != "" {
			b.WriteString(" [" + timeline.Escape(p.asked) + "]")
		}
	}
	separator := "  "
	for _, s := range p.Sums {
		b.WriteString(separator + s.text())
		separator = ", "
	}
	return b.String()
}

func (s *Sum) text() string {
	what := s.Class
	if s.Name != "" {
		what = s.Name + " " + string(s.Verdict)
	}
	return timeline.Escape(what) + " " + strconv.FormatUint(s.Count, 10)
}

// line is a process as one line of JSON.
type line struct {
	Namespace   record.Text   `json:"namespace"`
	Pod         record.Text   `json:"pod"`
	Container   record.Text   `json:"container"`
	ContainerID record.Text   `json:"containerID"`
	PID         uint32        `json:"pid"`
	Seq         uint64        `json:"seq"`    // pid@seq names it for --process
	Parent      *parent       `json:"parent"` // null: not known, or none
	Exec        record.Text   `json:"exec"`
	Session     []record.Text `json:"session,omitempty"`
	First       bool          `json:"first,omitempty"`
	Seen        bool          `json:"seen"` // false: known as a parent alone
	UID         uint32        `json:"uid"`
	Programs    []record.Text `json:"programs"`
	Command     record.Text   `json:"command,omitempty"`
	Asked       record.Text   `json:"asked,omitempty"`
	Calls       []calls       `json:"calls"`
}

type parent struct {
	PID uint32 `json:"pid"`
	Seq uint64 `json:"seq"`
}

type calls struct {
	Class   record.Text   `json:"class"`
	Verdict audit.Verdict `json:"verdict"`
	Syscall record.Text   `json:"syscall,omitempty"`
	Count   uint64        `json:"count"`
}

// PrintJSON writes each process as a line of JSON, in the order in which they were seen first.
func (f *Forest) PrintJSON(w io.Writer) error {
	for _, t := range f.trees {
		for _, p := range t.all {
			id := t.Identity
			l := line{
				Namespace: record.Text(id.Namespace), Pod: record.Text(id.Pod), Container: record.Text(id.Container), ContainerID: record.Text(id.ContainerID),
				PID: p.PID, Seq: p.Seq, Exec: record.Text(p.Exec), First: p.First, Seen: p.Seen, UID: p.UID, Session: texts(p.Session),
				Programs: texts(p.Programs), Command: record.Text(p.Command), Asked: record.Text(p.Asked), Calls: []calls{},
			}
			if p.Parent != nil {
				l.Parent = &parent{p.Parent.PID, p.Parent.Seq}
			}
			for _, s := range p.Sums {
				l.Calls = append(l.Calls, calls{record.Text(s.Class), s.Verdict, record.Text(s.Name), s.Count})
			}
			if err := output.WriteJSON(w, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func texts(words []string) []record.Text {
	out := []record.Text{}
	for _, w := range words {
		out = append(out, record.Text(w))
	}
	return out
}
