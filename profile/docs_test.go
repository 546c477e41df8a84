// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"metsuke.dev/metsuke/internal/goldentest"
	"metsuke.dev/metsuke/seccomp"
)

const reference = "../docs/profiles.md"

// The parts of the reference between markers are made from the code; -update rewrites them.
func TestReferenceIsUpToDate(t *testing.T) {
	for name, content := range map[string]string{"baseline": baselineReference(t), "fields": markdown(Fields()), "vocabulary": markdown(Vocabulary())} {
		goldentest.Section(t, reference, name, content)
	}
}

func baselineReference(t *testing.T) string {
	r := resolve(t, load(t, ""), Baseline)
	l := &r.Layers[0]
	rules := func(action seccomp.Action, rules []seccomp.Rule, columns ...string) string {
		table := Table{Columns: columns}
		for _, rule := range rules {
			calls := "`" + strings.Join(rule.Syscalls, "` `") + "`"
			if c := FormatArgs(rule.Args); c != "" {
				calls += " if `" + c + "`"
			}
			row := []string{rule.ID, calls}
			if action == seccomp.ActionDeny {
				row = append(row, ErrnoName(rule.Errno))
			}
			table.Rows = append(table.Rows, append(row, r.Provenance.Rules[RuleKey{l.Name, action, rule.ID}].Reason))
		}
		return table.Markdown()
	}
	var limits []string
	for _, name := range limitNames() {
		if v := FormatLimit(r.Limits, name); v != "" {
			limits = append(limits, "`"+name+": "+v+"`")
		}
	}
	return "\n`noNewPrivileges: " + string(r.NoNewPrivileges) + "`, default `" + l.Default.String() + "`, limits " + strings.Join(limits, ", ") +
		", audit classes `" + strings.Join(r.Classes, "`, `") + "`, `delivery: " + string(r.Delivery) + "`, `onLoss: " + string(r.OnLoss) +
		"`, `durability: " + string(r.Durability) + "`.\n\n" +
		rules(seccomp.ActionDeny, l.Deny, "denied by", "calls", "error", "why") + "\nExceptions, which are tried first:\n\n" +
		rules(seccomp.ActionAllow, l.Allow, "allowed by", "calls", "why") + "\n"
}

func markdown(tables []Table) string {
	var b strings.Builder
	for _, table := range tables {
		b.WriteString("\n### " + table.Title + "\n\n" + table.Markdown())
	}
	return b.String() + "\n"
}

// Every document that the reference shows must be one that is taken.
func TestReferenceExamples(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(data, -1)
	if len(blocks) < 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	var all []string
	for _, b := range blocks {
		if strings.HasPrefix(string(b[1]), "apiVersion: metsuke.dev") {
			all = append(all, string(b[1]))
		}
	}
	s, err := Load(files("profiles.md", "", "p.yaml", strings.Join(all, "---\n")), "/docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.Warnings() {
		t.Error(w)
	}
	for _, name := range s.Names() {
		compiles(t, resolve(t, s, name))
	}
}
