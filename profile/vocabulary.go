// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"metsuke.dev/metsuke/cgroups"
	"metsuke.dev/metsuke/profile/form"
	"metsuke.dev/metsuke/seccomp"
)

// Table is one vocabulary of the documents.
type Table struct {
	Name    string // one word
	Title   string
	Columns []string
	Rows    [][]string
}

// Vocabulary returns every table of words that a document can use, from the code that reads them.
func Vocabulary() []Table {
	return []Table{
		classTable(), actionTable(), operatorTable(), architectureTable(), limitTable(), valueTable(),
		podActionTable(), constantTable(), errnoTable(),
	}
}

// Syscalls returns the table of all calls that a rule can name, with their numbers. It is long.
func Syscalls() Table {
	t := Table{Name: "syscalls", Title: "System calls", Columns: []string{"name", "amd64", "arm64", "386", "x32", "arm"}}
	archs := []seccomp.Arch{seccomp.ArchAMD64, seccomp.ArchARM64, seccomp.Arch386, seccomp.ArchX32, seccomp.ArchARM}
	seen := map[string]bool{}
	for _, a := range archs {
		seccomp.EachSyscall(a, func(_ int, name string) bool {
			if seen[name] {
				return true
			}
			seen[name] = true
			row := []string{name}
			for _, a := range archs {
				nr, ok := seccomp.SyscallNumber(a, name)
				if !ok {
					row = append(row, "-")
					continue
				}
				row = append(row, strconv.Itoa(nr))
			}
			t.Rows = append(t.Rows, row)
			return true
		})
	}
	slices.SortFunc(t.Rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return t
}

func classTable() Table {
	t := Table{"classes", "Audit classes (audit.classes)", []string{"class", "what it shows"}, nil}
	for _, c := range seccomp.Classes() {
		t.Rows = append(t.Rows, []string{c.Name, c.Doc})
	}
	return t
}

func actionTable() Table {
	t := Table{"actions", "What is done with a call, strictest last", []string{"action", "nearest OCI action", "meaning"}, nil}
	for _, a := range seccomp.KnownActions() {
		t.Rows = append(t.Rows, []string{a.Name, string(a.OCI), a.Doc})
	}
	return t
}

func operatorTable() Table {
	t := Table{"operators", "Operators (args[].op)", []string{"op", "OCI name", "holds if"}, nil}
	for _, o := range seccomp.KnownOps() {
		t.Rows = append(t.Rows, []string{string(o.Op), string(o.OCI), o.Doc})
	}
	return t
}

func architectureTable() Table {
	t := Table{"architectures", "Architectures (seccomp.architectures)", []string{"name", "short", "is"}, nil}
	for _, a := range seccomp.KnownArches() {
		doc := a.Doc
		if a.Native {
			doc += " (native; needs not be listed)"
		}
		t.Rows = append(t.Rows, []string{a.Name, a.Go, doc})
	}
	return t
}

func limitTable() Table {
	t := Table{"limits", "Limits (limits)", []string{"limit", "unit", "bounds"}, nil}
	for _, l := range cgroups.Resources() {
		t.Rows = append(t.Rows, []string{l.Name, l.Unit, l.Doc})
	}
	return t
}

func valueTable() Table {
	t := Table{"values", "Other words", []string{"field", "value", "meaning"}, nil}
	for _, field := range []string{"noNewPrivileges", "seccomp.default", "audit.delivery", "audit.onLoss", "audit.durability"} {
		for _, w := range profileForm.At(field).Words {
			t.Rows = append(t.Rows, []string{field, w.Name, w.Doc})
		}
	}
	return t
}

func podActionTable() Table {
	t := Table{"pod-actions", "Actions of a pod's own seccomp profile", []string{"action", "carried", "what becomes of it"}, nil}
	for _, a := range seccomp.KnownPodActions() {
		carried := "yes"
		if !a.Carried {
			carried = "no"
		}
		t.Rows = append(t.Rows, []string{string(a.OCI), carried, a.Doc})
	}
	return t
}

func constantTable() Table {
	t := Table{"constants", "Constants (args[].value, args[].mask)", []string{"name", "value", "used with"}, nil}
	for _, c := range constants {
		t.Rows = append(t.Rows, []string{c.Name, fmt.Sprintf("%#x", c.Value), c.Of})
	}
	return t
}

func errnoTable() Table {
	t := Table{"errors", "Errors (errno, defaultErrno)", []string{"name", "number"}, nil}
	for _, e := range errnos() {
		t.Rows = append(t.Rows, []string{e.Name, strconv.FormatUint(e.Value, 10)})
	}
	return t
}

// Markdown writes the table's rows in the form of the documentation.
func (t Table) Markdown() string {
	var b strings.Builder
	line := func(cells []string) {
		b.WriteString("|")
		for _, c := range cells {
			b.WriteString(" " + strings.ReplaceAll(c, "|", `\|`) + " |")
		}
		b.WriteString("\n")
	}
	line(t.Columns)
	b.WriteString(strings.Repeat("|---", len(t.Columns)) + "|\n")
	for _, row := range t.Rows {
		row = slices.Clone(row)
		row[0] = "`" + row[0] + "`"
		line(row)
	}
	return b.String()
}

// Fields returns a table of the fields of each kind of document, in the order in which people write them.
func Fields() []Table {
	var tables []Table
	for _, d := range []struct {
		kind string
		spec *form.Field
	}{{KindProfile, profileForm}, {KindBinding, bindingForm}} {
		t := Table{Name: d.kind, Title: "Fields of " + d.kind, Columns: []string{"field", "takes", "is"}}
		d.spec.Walk("", func(path string, f *form.Field) {
			if path == "" || f.Name == "" || strings.HasPrefix(path, ".seccomp.kill[]") || strings.HasPrefix(path, ".seccomp.allow[]") {
				return // the whole; an entry, of which its list speaks; rules, which are as those under deny
			}
			doc := f.Doc
			if f.Required {
				doc += "; required"
			}
			t.Rows = append(t.Rows, []string{strings.TrimPrefix(path, "."), f.Takes(), doc})
		})
		tables = append(tables, t)
	}
	return tables
}
