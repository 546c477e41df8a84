// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"strings"
	"unicode"
)

// maxWorded bounds what an error says of the far side's words, in bytes.
const maxWorded = 300

// FarSide returns an error whose text the far side may have worded, as one line of a few hundred bytes without control characters. It wraps err.
func FarSide(err error) error { return &farSide{err} }

type farSide struct{ err error }

func (e *farSide) Error() string {
	text := strings.ToValidUTF8(e.err.Error(), "\ufffd")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxWorded {
		text = strings.ToValidUTF8(text[:maxWorded], "") + "…"
	}
	return text
}

func (e *farSide) Unwrap() error { return e.err }
