// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"metsuke.dev/metsuke/internal/diagnostic"
	"metsuke.dev/metsuke/profile/form"
)

// Bounds on what is read, well above all that people write.
const (
	maxFileSize  = 256 << 10 // bytes of one file
	maxTotalSize = 4 << 20   // bytes of all files
	maxFiles     = 256
	maxEntries   = 4096 // directory entries, with those that are not documents
	maxDocuments = 1024 // of all files
	maxDepth     = 16   // of nesting in a document
	maxErrors    = 100  // that one run reports
)

// reader collects what is wrong with the documents of one run.
type reader struct {
	file string
	errs []*Error
	full bool
}

func (r *reader) add(e *Error) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, e)
		return
	}
	r.full = true
}

// fail notes a fault at a node of the file that is being read.
func (r *reader) fail(n *yaml.Node, field, msg, hint string) {
	r.add(&Error{File: r.file, Line: n.Line, Column: n.Column, Field: field, Msg: msg, Hint: hint})
}

func (r *reader) err() error {
	if r.full {
		return errors.Join(diagnostic.Join(r.errs), &Error{Msg: fmt.Sprintf("there are more than %d faults; the rest is not shown", maxErrors)})
	}
	return diagnostic.Join(r.errs)
}

var yamlLine = regexp.MustCompile(`^(?:line |offset )(\d+): `)

// documents parses a file into the roots of its documents. After a fault of syntax nothing can be said about the
// rest of the file.
func (r *reader) documents(data []byte) (roots []*yaml.Node) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for len(roots) <= maxDocuments {
		var doc yaml.Node
		err := decode(dec, &doc)
		if errors.Is(err, io.EOF) {
			return roots
		}
		if err != nil {
			msg, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
			if m := yamlLine.FindStringSubmatch(msg); m != nil {
				msg = msg[len(m[0]):]
				line, _ = strconv.Atoi(m[1])
			}
			r.add(&Error{File: r.file, Line: line, Msg: "is not YAML: " + printable(msg)})
			return roots
		}
		if len(doc.Content) != 1 || isNull(doc.Content[0]) {
			continue // only comments
		}
		if r.plain(doc.Content[0], 0) {
			roots = append(roots, doc.Content[0])
		}
	}
	return roots
}

// decode is dec.Decode without its panics: a fault of the parser must not end a pod's shim.
func decode(dec *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: the parser failed: %v", p)
		}
	}()
	return dec.Decode(doc)
}

// plain refuses what makes a document mean something else than what it shows.
func (r *reader) plain(n *yaml.Node, depth int) bool {
	switch {
	case depth > maxDepth:
		r.fail(n, "", fmt.Sprintf("is nested deeper than %d levels", maxDepth), "")
		return false
	case n.Kind == yaml.AliasNode:
		r.fail(n, "", "aliases are not taken", "write the value out, or put it into a profile that both extend")
		return false
	case n.Anchor != "":
		r.fail(n, "", "anchors are not taken", "write the value out, or put it into a profile that both extend")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(n, "", "tags are not taken: "+diagnostic.Quote(n.Tag), "write the value without its tag")
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = r.plain(c, depth+1) && ok
	}
	return ok
}

// printable keeps a message on one line, and short.
func printable(s string) string {
	const most = 400
	cut := ""
	if len(s) > most {
		s, cut = strings.ToValidUTF8(s[:most], ""), "…"
	}
	q := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`) + cut
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// readers has what reads each field of a form, by its name.
type readers map[string]func(n *yaml.Node, field string)

// mapping reads a mapping with the fields of a form.
func (r *reader) mapping(n *yaml.Node, field string, of *form.Field, read readers) {
	keys := of.Fields
	seen := make([]bool, len(keys))
	prefix := field
	if prefix != "" {
		prefix += "."
	}
	r.pairs(n, field, func(k, v *yaml.Node) {
		for i := range keys {
			if keys[i].Name != k.Value {
				continue
			}
			seen[i] = true
			if isNull(v) {
				r.fail(k, prefix+k.Value, "has no value", "remove the field or give it one")
				return
			}
			read[k.Value](v, prefix+k.Value)
			return
		}
		names := make([]string, len(keys))
		for i := range keys {
			names[i] = keys[i].Name
		}
		r.fail(k, prefix+oneLine(k.Value), "is not a known field", diagnostic.Expected(k.Value, names))
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := range keys {
		if keys[i].Required && !seen[i] {
			r.fail(n, prefix+keys[i].Name, "is missing", "")
		}
	}
}

// pairs calls f for each key and value of a mapping whose keys are names and occur once.
func (r *reader) pairs(n *yaml.Node, field string, f func(k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.wrong(n, field, "a mapping")
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.ShortTag() == "!!merge":
			r.fail(k, field, "merges (<<) are not taken", "put what is common into a profile that both extend")
			continue
		case k.Kind != yaml.ScalarNode:
			r.fail(k, field, describe(k)+" is not the name of a field", "")
			continue
		}
		if first, twice := seen[k.Value]; twice {
			r.fail(k, join(field, oneLine(k.Value)), fmt.Sprintf("is given twice; the first is on line %d", first), "")
			continue
		}
		seen[k.Value] = k.Line
		f(k, v)
	}
}

// entries is pairs for a mapping of at most most entries.
func (r *reader) entries(n *yaml.Node, field string, most int, f func(k, v *yaml.Node)) {
	if n.Kind == yaml.MappingNode && len(n.Content)/2 > most {
		r.fail(n, field, fmt.Sprintf("has %d entries", len(n.Content)/2), fmt.Sprintf("expected at most %d", most))
		return
	}
	r.pairs(n, field, f)
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

// list calls f for each entry of a list; for a list of at most most entries.
func (r *reader) list(n *yaml.Node, field string, most int, f func(n *yaml.Node, field string)) {
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, field, "a list")
		return
	}
	if len(n.Content) > most {
		r.fail(n, field, fmt.Sprintf("has %d entries", len(n.Content)), fmt.Sprintf("expected at most %d", most))
		return
	}
	for i, c := range n.Content {
		f(c, field+"["+strconv.Itoa(i)+"]")
	}
}

// strings reads a list of different, not empty strings. check says what is wrong with one, or "".
func (r *reader) strings(n *yaml.Node, field string, of *form.Field, check func(s string) (msg, hint string)) []string {
	var out []string
	seen := map[string]int{}
	r.list(n, field, of.Most, func(n *yaml.Node, field string) {
		s, ok := r.text(n, field, 0)
		if !ok {
			return
		}
		if first, twice := seen[s]; twice {
			r.fail(n, field, diagnostic.Quote(s)+" is named twice", fmt.Sprintf("the first is on line %d", first))
			return
		}
		seen[s] = n.Line
		if msg, hint := check(s); msg != "" {
			r.fail(n, field, msg, hint)
			return
		}
		out = append(out, s)
	})
	return out
}

// text reads a string of at most most characters; 0: what it may be is checked by whoever asks.
func (r *reader) text(n *yaml.Node, field string, most int) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		expected := "a string"
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			expected += fmt.Sprintf(": write %q with its quotes", oneLine(n.Value))
		}
		r.wrong(n, field, expected)
		return "", false
	}
	if n.Value == "" {
		r.fail(n, field, "is empty", "remove it or give it a value")
		return "", false
	}
	return n.Value, most == 0 || r.notLonger(n, field, most)
}

func (r *reader) notLonger(n *yaml.Node, field string, most int) bool {
	if utf8.RuneCountInString(n.Value) <= most {
		return true
	}
	r.fail(n, field, "is too long", fmt.Sprintf("expected at most %d characters", most))
	return false
}

// number is a scalar of at most most characters that may be written with or without quotes: a quantity, a value, a duration.
func (r *reader) number(n *yaml.Node, field string, most int, expected string) (string, bool) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str", "!!int", "!!float":
			return n.Value, r.notLonger(n, field, most)
		}
	}
	r.wrong(n, field, expected)
	return "", false
}

func (r *reader) boolean(n *yaml.Node, field string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		r.wrong(n, field, "true or false")
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// word reads one of a fixed set of strings.
func (r *reader) word(n *yaml.Node, field string, words ...string) string {
	if n.Kind == yaml.ScalarNode {
		for _, w := range words {
			if n.Value == w {
				return w
			}
		}
		r.fail(n, field, show(n)+" is not a value of this field", diagnostic.Expected(n.Value, words))
		return ""
	}
	r.wrong(n, field, diagnostic.OneOf(words))
	return ""
}

func (r *reader) wrong(n *yaml.Node, field, expected string) {
	r.fail(n, field, describe(n)+" is not a value of this field", "expected "+expected)
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return show(n)
}

func show(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "no value"
	case n.ShortTag() == "!!str":
		return diagnostic.Quote(n.Value)
	}
	return oneLine(n.Value)
}

// oneLine shows a key or a plain scalar inside a message.
func oneLine(s string) string {
	if q := diagnostic.Quote(s); len(q) != len(s)+2 {
		return q
	}
	return s
}
