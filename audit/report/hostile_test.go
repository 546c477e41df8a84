// SPDX-License-Identifier: Apache-2.0

package report

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/report/reporttest"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/verify"
)

// parse returns the elements of a page in their order, each with the names of its attributes. It fails the test where the page has what it
// never has, whatever records hold.
func parse(t testing.TB, page string) (elements []string) {
	t.Helper()
	if !utf8.ValidString(page) {
		t.Error("the page is not UTF-8")
	}
	for _, r := range page {
		if !audit.Printable(r) && r != '\n' {
			t.Errorf("the page has the character %U", r)
			break
		}
	}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.CommentNode {
			t.Errorf("the page has a comment: %q", n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		if whole := element(t, n); !isCut(n) { // whether a text is cut depends on how long it is once escaped
			elements = append(elements, whole)
		}
	}
	return elements
}

func isCut(n *html.Node) bool {
	return slices.Contains(n.Attr, html.Attribute{Key: "class", Val: "cut"})
}

func element(t testing.TB, n *html.Node) string {
	t.Helper()
	whole := n.Data
	for _, a := range n.Attr {
		whole += " " + a.Key
		switch a.Key {
		case "href":
			if !strings.HasPrefix(a.Val, "#") {
				t.Errorf("the page leads to %q", a.Val)
			}
		case "src", "style", "action", "formaction", "srcdoc", "xlink:href":
			t.Errorf("the page has an attribute %s=%q", a.Key, a.Val)
		}
		if strings.HasPrefix(a.Key, "on") {
			t.Errorf("the page has a handler %s=%q", a.Key, a.Val)
		}
	}
	own := map[string]string{"script": pageJS, "style": pageCSS}
	if text, ok := own[n.Data]; ok && (n.FirstChild == nil || n.FirstChild.Data != text) {
		t.Errorf("the page has another %s", n.Data)
	}
	if slices.Contains([]string{"iframe", "object", "embed", "img", "link", "base", "image", "foreignObject", "use"}, n.Data) {
		t.Errorf("the page has an element %s", n.Data)
	}
	return whole
}

// only is a report of records that are all of one container.
func only(records ...*record.Record) *Report {
	r := &Report{}
	s := stream.Stream{Path: "/streams/a_p_u/c", Pod: "a_p_u", Container: "c"}
	for _, rec := range records {
		r.Add(rec, s)
	}
	r.Verified(&verify.Stream{Path: s.Path})
	return r
}

// fill sets all strings that a value has, however deep.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Pointer:
		if !v.IsNil() {
			fill(v.Elem(), s)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), s)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fill(f, s)
			}
		}
	}
}

// different are the events of a usual session that differ by kind, call and verdict: one of each.
func different() (events []audit.Event) {
	type sort struct{ kind, call, verdict string }
	seen := map[sort]bool{}
	for _, e := range reporttest.Session()[0].Events {
		of := sort{kind: string(e.Kind)}
		if c := e.Syscall; c != nil {
			of.call, of.verdict = c.Syscall, string(c.Verdict)
		}
		if !seen[of] {
			seen[of] = true
			events = append(events, e)
		}
	}
	return events
}

var who = audit.Identity{Namespace: "a", Pod: "p", PodUID: "u", Container: "c", ContainerID: "i"}

// whole are records in which each field has the string, but for their kind.
func whole(s string) (records []*record.Record) {
	for i, e := range different() {
		rec := &record.Record{Seq: uint64(i + 1), Event: e}
		fill(reflect.ValueOf(rec).Elem(), s)
		rec.Event.Kind = e.Kind
		records = append(records, rec)
	}
	return records
}

// mixed are records of calls in which only the workload's own words are the string: what others decide by is as usual.
func mixed(s string) (records []*record.Record) {
	for i, e := range different() {
		if c := e.Syscall; c != nil {
			c.Comm, c.Exe, c.Errno, c.RuleID, c.Origin = s, s, s, s, s
			for a := range c.Args {
				c.Args[a].Value = s
			}
		}
		records = append(records, &record.Record{Seq: uint64(i + 1), Identity: who, Event: e})
	}
	return records
}

// harmless are the elements of pages of harmless strings, by their length and by what makes records of them.
type harmless map[int][]string

// same demands that a page of records with a string has the elements that one with as many harmless characters has.
func (h harmless) same(t testing.TB, hostile string, records func(string) []*record.Record) {
	t.Helper()
	elements := func(s string) []string {
		return parse(t, write(t, only(records(s)...), About{Pod: s, Version: "0.1.0", At: verifiedAt, Keys: []string{s}, Chosen: []string{s}}))
	}
	want := h[len(hostile)]
	if want == nil {
		want = elements(strings.Repeat("x", len(hostile)))
		h[len(hostile)] = want
	}
	if got := elements(hostile); !slices.Equal(got, want) {
		t.Errorf("%.80q makes another page: %s", hostile, firstDifference(got, want))
	}
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return got[i] + " instead of " + want[i]
		}
	}
	return "its length"
}

// Whatever strings records hold, the page has the same elements with the same attributes, and nothing that runs or loads.
func TestHostileStrings(t *testing.T) {
	inAll, inCalls := harmless{}, harmless{}
	for _, s := range reporttest.Strings {
		inAll.same(t, s, whole)
		inCalls.same(t, s, mixed)
	}
}

// The same of findings, which hold names from files.
func TestHostileFindings(t *testing.T) {
	for _, s := range reporttest.Strings {
		finding := verify.Finding{Severity: verify.Severity(s), Code: verify.Code(s), File: s, Line: 1, Offset: 2, Seq: 3, Message: s}
		r := only(whole("x")...)
		r.Verified(&verify.Stream{Path: "/streams/a_p_u/c", Stream: s, ID: s, State: verify.State(s), Findings: []verify.Finding{finding}})
		r.Ledger(&verify.Ledger{Path: s, Findings: []verify.Finding{finding, finding}})
		parse(t, write(t, r, About{Pod: "a/p", At: verifiedAt}))
	}
}

func FuzzPage(f *testing.F) {
	for _, s := range reporttest.Strings {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, known := range append(audit.Evidences(), append(audit.Verdicts(), audit.LossReasons()...)...) {
			if s == known.Name {
				t.Skip("a word of a vocabulary decides what is shown")
			}
		}
		harmless{}.same(t, s, mixed)
		harmless{}.same(t, s, whole)
	})
}
