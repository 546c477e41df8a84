// SPDX-License-Identifier: Apache-2.0

package tomlfile

import (
	"fmt"
	"path"
	"strings"
	"time"

	"metsuke.dev/metsuke/internal/diagnostic"
)

// The functions below take a value in, or say what was expected instead.

// Word takes one of a few words.
func Word[S ~string](to *S, v any, words ...S) string {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	s, _ := v.(string)
	for _, w := range words {
		if s == string(w) {
			*to = w
			return ""
		}
	}
	return strings.TrimPrefix(diagnostic.Expected(s, known), "expected ")
}

// Text takes a string of 1 to most bytes without control characters.
func Text(to *string, v any, most int) string {
	s, ok := v.(string)
	if !ok || s == "" || len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("a string of 1 to %d bytes, without control characters", most)
	}
	*to = s
	return ""
}

// Bool takes a boolean.
func Bool(to *bool, v any) string {
	b, ok := v.(bool)
	if !ok {
		return "true or false"
	}
	*to = b
	return ""
}

// Int takes a number within bounds.
func Int(to *int, v any, least, most int) string {
	n, ok := v.(int64)
	if !ok || n < int64(least) || n > int64(most) {
		return fmt.Sprintf("a number from %d to %d", least, most)
	}
	*to = int(n)
	return ""
}

// Path takes an absolute path.
func Path(to *string, v any) string {
	s, _ := v.(string)
	if !path.IsAbs(s) || path.Clean(s) != s || s == "/" || len(s) >= 4096 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
		return "an absolute path without . or .. or a slash at its end"
	}
	*to = s
	return ""
}

// Duration takes a duration within bounds.
func Duration(to *time.Duration, v any, least, most time.Duration) string {
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		return fmt.Sprintf("a duration from %s to %s, such as \"10s\"", least, most)
	}
	*to = d
	return ""
}
