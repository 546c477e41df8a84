// SPDX-License-Identifier: Apache-2.0

// Package flagvalue reads what is asked for from the words of a command line.
package flagvalue

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

// Enum is one of some words.
type Enum struct {
	Value string
	words []string
}

// NewEnum returns one with a default.
func NewEnum(value string, words ...string) *Enum { return &Enum{value, words} }

// Words are the words that it can be.
func (f *Enum) Words() []string { return f.words }

// String implements pflag.Value.
func (f *Enum) String() string { return f.Value }

// Type implements pflag.Value.
func (f *Enum) Type() string { return "form" }

// Set implements pflag.Value.
func (f *Enum) Set(s string) error {
	if !slices.Contains(f.words, s) {
		return fmt.Errorf("must be one of %s", strings.Join(f.words, ", "))
	}
	f.Value = s
	return nil
}

// Terms is a list of words of a vocabulary.
type Terms[T ~string] struct {
	List       *[]T
	Vocabulary []audit.Term
}

// String implements pflag.Value.
func (f *Terms[T]) String() string { return "" }

// Type implements pflag.Value.
func (f *Terms[T]) Type() string { return "names" }

// Set implements pflag.Value.
func (f *Terms[T]) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if !slices.ContainsFunc(f.Vocabulary, func(t audit.Term) bool { return t.Name == word }) {
			return fmt.Errorf("must be one of %s", Names(f.Vocabulary))
		}
		*f.List = append(*f.List, T(word))
	}
	return nil
}

// Names are the words of a vocabulary.
func Names(terms []audit.Term) string {
	return strings.Join(words(terms), ", ")
}

// Time is a time, absolute or ago.
type Time struct{ T *time.Time }

// String implements pflag.Value.
func (f *Time) String() string { return "" }

// Type implements pflag.Value.
func (f *Time) Type() string { return "time" }

// Set implements pflag.Value.
func (f *Time) Set(s string) error {
	if ago, err := time.ParseDuration(s); err == nil {
		if ago < 0 {
			return errors.New("must not be negative: 10m means ten minutes ago")
		}
		*f.T = time.Now().Add(-ago)
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("must be a duration (10m, 2h30m) or a time in RFC 3339 (2026-01-31T08:00:00Z)")
	}
	*f.T = t
	return nil
}

// Lines is a count or "all".
type Lines struct{ N *int }

// String implements pflag.Value.
func (f *Lines) String() string { return "" }

// Type implements pflag.Value.
func (f *Lines) Type() string { return "count" }

// Set implements pflag.Value.
func (f *Lines) Set(s string) error {
	if s == "all" {
		*f.N = query.All
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errors.New("must be a count or all")
	}
	*f.N = int(n)
	return nil
}
