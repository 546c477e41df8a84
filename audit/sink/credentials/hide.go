// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

const (
	minSecret = 4   // bytes of what is taken for one
	maxShown  = 512 // bytes of an error
)

// Hide returns an error that wraps err and has its text, which a far side may have worded: without secrets that it repeats, whole or in words,
// without control characters, and cut to 512 bytes. Secrets of less than four bytes cannot be told from other text.
func Hide(err error, secrets []string) error {
	if err == nil {
		return nil
	}
	var words []string
	for _, secret := range secrets {
		words = append(words, append(strings.Fields(secret), secret)...)
	}
	slices.SortFunc(words, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the longest first
	text := err.Error()
	for _, word := range words {
		if len(word) >= minSecret {
			text = strings.ReplaceAll(text, word, "…")
		}
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	return &hidden{strings.ToValidUTF8(text[:min(len(text), maxShown)], ""), err}
}

type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }
