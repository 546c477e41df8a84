// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

const (
	minSecret = 4   // bytes of what is taken for one
	maxShown  = 512 // bytes of an error
)

// Hide returns an error with the text of err, but for secrets in it and in their words, which a far side may have repeated, and cut to 512 bytes. Secrets of
// less than four bytes cannot be told from other text. What err wraps is lost.
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
	return errors.New(strings.ToValidUTF8(text[:min(len(text), maxShown)], ""))
}
