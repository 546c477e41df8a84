// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/frequent"
	"metsuke.dev/metsuke/audit/stats"
)

// maxRows bounds the rows of a table.
const maxRows = 100

// table is a table of a page.
type table struct {
	Columns []string
	Rows    []tableRow
	Left    string // what is not in it; empty: nothing
	Command string // that shows all of it
}

type tableRow struct {
	Cells   []entry
	Refused bool // it is about what was denied or killed
}

// entry is what stands in a cell: those of its fields that are set.
type entry struct {
	Badge, Class string
	Plain        string
	Codes        []Text
	Then         string // between two codes
	More         bool   // there are codes that are not kept
	Count        string
	Share        int // of the largest count of the table: 1 to 100
	Args         []argView
	From, To     *Moment
	Evidence     string
}

type argView struct {
	Name  Text
	Value Text
	Exact bool
}

// left says what a list of facts does not show.
func left[V any](t *frequent.Table[V], shown int) string {
	more := len(t.Items()) - shown
	switch {
	case t.Full():
		return "There are more than " + number(frequent.MaxNames) +
			" different ones. Counts that are given as “a to b” lie between the two, and what occurs seldom may not be here."
	case more > 0:
		return "And " + number(uint64(more)) + " more, which occur less often."
	}
	return ""
}

// share is how a count compares with the largest one, for a bar.
func share(n, most uint64) int { return max(1, int(float64(n)/float64(max(1, most))*100)) }

func (f *fact) by() entry { return entry{Codes: texts(f.programs), More: f.more} }

// during says when a fact happened first, and last.
func (s *scale) during(f *fact) entry {
	e := entry{From: s.at(f.first)}
	if f.last > f.first {
		e.To = s.at(f.last)
	}
	return e
}

func evidenceOf(e audit.Evidence) string {
	if e == audit.EvidencePeeked {
		return "peeked"
	}
	return text(string(e)).S
}

// items returns what a table has rows for.
func items[V any](t *frequent.Table[V]) (list []*frequent.Item[V], most uint64) {
	list = t.Items()
	list = list[:min(len(list), maxRows)]
	if len(list) > 0 {
		most = list[0].Count
	}
	return list, most
}

func (r *Report) denialTable(s *scale) table {
	list, most := items(&r.denials)
	t := table{
		Columns: []string{"verdict", "call", "rule", "times", "first and last", "program", "arguments of the first"},
		Left:    left(&r.denials, len(list)), Command: "metsuke audit query --verdict denied,killed",
	}
	for _, item := range list {
		d := item.Value
		var args []argView
		for _, a := range d.args {
			args = append(args, argView{text(a.name), a.value, a.exact})
		}
		t.Rows = append(t.Rows, tableRow{Refused: true, Cells: []entry{
			{Badge: text(string(d.verdict)).S, Class: "refused"},
			{Codes: []Text{text(d.call)}, Plain: text(d.errno).S}, {Codes: []Text{text(d.rule)}},
			{Count: between(item.Count, item.Over), Share: share(item.Count, most)}, s.during(&d.fact),
			d.by(), {Args: args},
		}})
	}
	return r.within(t, func(i int) int { return list[i].Value.container })
}

func (r *Report) addressTable(s *scale) table {
	list, most := items(&r.destinations)
	slices.SortStableFunc(list, func(a, b *frequent.Item[*destination]) int {
		return cmp.Compare(min(b.Value.refused, 1), min(a.Value.refused, 1))
	})
	t := table{
		Columns: []string{"address", "where", "call", "times", "denied", "first and last", "program", "evidence"},
		Left:    left(&r.destinations, len(list)), Command: "metsuke audit query --class net",
	}
	for _, item := range list {
		d := item.Value
		refused := entry{Plain: number(d.refused)}
		if d.refused > 0 {
			refused = entry{Badge: number(d.refused) + " denied", Class: "refused"}
		}
		t.Rows = append(t.Rows, tableRow{Refused: d.refused > 0, Cells: []entry{
			{Codes: []Text{text(d.address)}}, {Plain: where(d.address)}, {Codes: []Text{text(d.call)}},
			{Count: between(item.Count, item.Over), Share: share(item.Count, most)}, refused, s.during(&d.fact),
			d.by(), {Evidence: evidenceOf(d.evidence)},
		}})
	}
	return r.within(t, func(i int) int { return list[i].Value.container })
}

// where says what part of the net an address is of.
func where(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		switch {
		case strings.HasPrefix(address, "unix"):
			return "same host"
		case strings.HasPrefix(address, "vsock"), strings.HasPrefix(address, "netlink"):
			return "kernel or host"
		}
		return "other"
	}
	switch ip := at.Addr().Unmap(); {
	case ip.IsUnspecified():
		return "any"
	case ip.IsLoopback():
		return "loopback"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.IsMulticast():
		return "multicast"
	case ip.IsPrivate():
		return "private"
	}
	return "public"
}

func (r *Report) fileTable(s *scale, files *frequent.Table[*file], command string) table {
	list, most := items(files)
	t := table{Columns: []string{"what", "path", "times", "first and last", "program", "evidence"}, Left: left(files, len(list)), Command: command}
	for _, item := range list {
		f := item.Value
		path := entry{Codes: []Text{text(f.path)}}
		if f.to != "" {
			path.Codes, path.Then = append(path.Codes, text(f.to)), "→"
		}
		t.Rows = append(t.Rows, tableRow{Cells: []entry{
			{Badge: f.what, Class: f.what}, path, {Count: between(item.Count, item.Over), Share: share(item.Count, most)},
			s.during(&f.fact), f.by(), {Evidence: evidenceOf(f.evidence)},
		}})
	}
	return r.within(t, func(i int) int { return list[i].Value.container })
}

// within adds the container of each row, where there are several.
func (r *Report) within(t table, of func(i int) int) table {
	if len(r.containers) < 2 {
		return t
	}
	t.Columns = append(t.Columns, "container")
	for i := range t.Rows {
		t.Rows[i].Cells = append(t.Rows[i].Cells, entry{Codes: []Text{r.named(of(i))}})
	}
	return t
}

func more(n uint64) string {
	if n == 0 {
		return ""
	}
	return "And " + number(n) + " more, later ones."
}

func (r *Report) sessionTable(s *scale) table {
	t := table{Columns: []string{"command", "user", "from", "to", "end", "id"}, Left: more(r.sessions.more), Command: "metsuke audit query --kind exec,exit"}
	for _, x := range r.sessions.kept {
		end := entry{Plain: "no record says how it ended"}
		to := entry{}
		if x.exit != nil {
			end = entry{Codes: []Text{*x.exit}}
			to = entry{From: s.at(x.to)}
		}
		t.Rows = append(t.Rows, tableRow{Cells: []entry{
			{Codes: []Text{x.command}}, {Plain: strconv.FormatUint(uint64(x.uid), 10)}, {From: s.at(x.from)}, to, end,
			{Codes: []Text{short(x.id)}},
		}})
	}
	return r.within(t, func(i int) int { return r.sessions.kept[i].container })
}

func (r *Report) pressureTable(s *scale) table {
	t := table{Columns: []string{"what", "when", "details"}, Left: more(r.pressures.more), Command: "metsuke audit query --kind limit,oom"}
	for _, x := range r.pressures.kept {
		what := entry{Badge: "limit lowered", Class: "limit"}
		if x.oom {
			what = entry{Badge: "killed for want of memory", Class: "oom"}
		}
		t.Rows = append(t.Rows, tableRow{Refused: x.oom, Cells: []entry{what, {From: s.at(x.at)}, {Codes: []Text{x.what}}}})
	}
	return r.within(t, func(i int) int { return r.pressures.kept[i].container })
}

func (r *Report) gapTable(s *scale) table {
	t := table{
		Columns: []string{"reason", "after", "before", "record", "missing", "what it means"},
		Left:    more(r.gaps.more), Command: "metsuke audit query --kind loss",
	}
	for _, g := range r.gaps.kept {
		missing := number(g.count)
		if g.bytes > 0 {
			missing += ", " + many(g.bytes, "byte") + " cut"
		}
		means := entry{Plain: meaning(g.reason.S)}
		if g.onLoss.S != "" {
			means.Plain += " The container: " + g.onLoss.S + "."
		}
		if g.detail.S != "" {
			means.Codes = []Text{g.detail}
		}
		t.Rows = append(t.Rows, tableRow{Refused: true, Cells: []entry{
			{Badge: g.reason.S, Class: "gap"}, {From: s.at(g.after)}, {From: s.at(g.at)}, {Plain: number(g.seq)}, {Plain: missing}, means,
		}})
	}
	return r.within(t, func(i int) int { return r.gaps.kept[i].container })
}

// meaning says what the reason of a loss means.
func meaning(reason string) string {
	for _, term := range audit.LossReasons() {
		if term.Name == reason {
			return plain(term.Doc)
		}
	}
	if reason == "missing" {
		return "The numbers of records go on behind others that are not there, and no record says why."
	}
	return ""
}

// plain is a sentence of a vocabulary without its Markdown.
func plain(doc string) string { return strings.ReplaceAll(doc, "`", "") }

func classTable(sums *stats.Page) table {
	t := table{Columns: []string{"class", "allowed", "denied", "killed"}}
	for _, c := range sums.Calls {
		name := text(string(c.Class))
		if name.S == "" {
			name.S = "(none)"
		}
		t.Rows = append(t.Rows, tableRow{Refused: c.Denied+c.Killed > 0, Cells: []entry{
			{Codes: []Text{name}}, {Plain: number(c.Allowed)}, {Plain: number(c.Denied)}, {Plain: number(c.Killed)},
		}})
	}
	return t
}

func programTable(sums *stats.Page) table {
	t := table{Columns: []string{"program", "times", "evidence"}, Command: "metsuke audit query --class exec"}
	if len(sums.Programs) == maxRows {
		t.Left = "And more, which were asked for less often."
	}
	for _, p := range sums.Programs {
		t.Rows = append(t.Rows, tableRow{Cells: []entry{
			{Codes: []Text{text(string(p.Name))}}, {Count: between(p.Count, p.Over), Share: share(p.Count, sums.Programs[0].Count)}, {Evidence: "peeked"},
		}})
	}
	return t
}
