// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/query"
)

// The types here implement pflag.Value, so that a bad value is refused as any other mistake in usage.

// enumFlag is one of some words.
type enumFlag struct {
	value string
	words []string
}

func newEnumFlag(value string, words ...string) *enumFlag { return &enumFlag{value, words} }

func (f *enumFlag) String() string { return f.value }
func (f *enumFlag) Type() string   { return "form" }
func (f *enumFlag) Set(s string) error {
	if !slices.Contains(f.words, s) {
		return fmt.Errorf("must be one of %s", strings.Join(f.words, ", "))
	}
	f.value = s
	return nil
}

// termsFlag is a list of words of a vocabulary.
type termsFlag[T ~string] struct {
	list  *[]T
	terms []audit.Term
}

func (f *termsFlag[T]) String() string { return "" }
func (f *termsFlag[T]) Type() string   { return "names" }
func (f *termsFlag[T]) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if !slices.ContainsFunc(f.terms, func(t audit.Term) bool { return t.Name == word }) {
			return fmt.Errorf("must be one of %s", names(f.terms))
		}
		*f.list = append(*f.list, T(word))
	}
	return nil
}

func names(terms []audit.Term) string {
	words := make([]string, len(terms))
	for i, t := range terms {
		words[i] = t.Name
	}
	return strings.Join(words, ", ")
}

// timeFlag is a time, absolute or ago.
type timeFlag struct{ t *time.Time }

func (f *timeFlag) String() string { return "" }
func (f *timeFlag) Type() string   { return "time" }
func (f *timeFlag) Set(s string) error {
	if ago, err := time.ParseDuration(s); err == nil {
		if ago < 0 {
			return errors.New("must not be negative: 10m means ten minutes ago")
		}
		*f.t = time.Now().Add(-ago)
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("must be a duration (10m, 2h30m) or a time in RFC 3339 (2026-01-31T08:00:00Z)")
	}
	*f.t = t
	return nil
}

// linesFlag is a count or "all".
type linesFlag struct{ n *int }

func (f *linesFlag) String() string { return "" }
func (f *linesFlag) Type() string   { return "count" }
func (f *linesFlag) Set(s string) error {
	if s == "all" {
		*f.n = query.All
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errors.New("must be a count or all")
	}
	*f.n = int(n)
	return nil
}
