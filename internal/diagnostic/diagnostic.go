// SPDX-License-Identifier: Apache-2.0

// Package diagnostic says what is wrong with a file that people write: where, what, and what was expected.
package diagnostic

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Error is one fault in a file. Its text is "file:line:column: field: what is wrong; hint"; what is not known
// is left out.
type Error struct {
	File   string // as the reader would open it
	Line   int    // from 1; 0 if not known
	Column int    // from 1; 0 if not known
	Field  string // path of the field: "spec.limits.memory"
	Msg    string // what is wrong
	Hint   string // what was expected, and what may have been meant
}

// Error implements error. Control characters of the file are quoted, so the text is one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			b.WriteString(":" + strconv.Itoa(e.Line))
			if e.Column > 0 {
				b.WriteString(":" + strconv.Itoa(e.Column))
			}
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Join returns one error for all of errs in the order of their places, or nil if there are none. The single
// faults are found again with [All].
func Join(errs []*Error) error {
	if len(errs) == 0 {
		return nil
	}
	errs = slices.Clone(errs)
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	joined := make([]error, len(errs))
	for i, e := range errs {
		joined[i] = e
	}
	return errors.Join(joined...)
}

// All returns every *Error that err wraps, in the order of their places.
func All(err error) []*Error {
	var out []*Error
	switch e := err.(type) { //nolint:errorlint // the tree is walked by hand: errors.As stops at the first
	case nil:
	case *Error:
		out = append(out, e)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			out = append(out, All(inner)...)
		}
	case interface{ Unwrap() error }:
		out = All(e.Unwrap())
	}
	return out
}

// maxShown bounds how much of a file's text a message repeats.
const maxShown = 64

// Quote shows text of a file inside a message: quoted, printable, and cut at 64 bytes.
func Quote(s string) string {
	if len(s) > maxShown {
		return strconv.QuoteToGraphic(strings.ToValidUTF8(s[:maxShown], "")) + "…"
	}
	return strconv.QuoteToGraphic(s)
}

// Expected returns the hint of a field with a fixed set of values: "expected a, b or c; did you mean b?".
func Expected(got string, known []string) string {
	hint := "expected " + OneOf(known)
	if near := Nearest(got, known); near != "" {
		hint += "; did you mean " + near + "?"
	}
	return hint
}

// OneOf writes alternatives: "a", "a or b", "a, b or c".
func OneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// Nearest returns the known word that word was probably meant to be, or "" if none is near. Case does not count,
// and of equally near words the first wins.
func Nearest(word string, known []string) string {
	if word == "" || len(word) > maxShown {
		return ""
	}
	best, bestDistance := "", 1+min(3, (len(word)+1)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k), bestDistance); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal
// string alignment). Words whose lengths differ by limit or more are as far as limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, prev[j+1]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
