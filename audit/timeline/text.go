// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
)

// Escape returns s with what could act on a terminal, or pass for other text, as an escape.
func Escape(s string) string { return string(appendBare(nil, s)) }

// appendBare appends s with what could act on a terminal, or pass for other text, as an escape.
func appendBare(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		dst = appendRune(dst, s[i:i+n], r, n)
		i += n
	}
	return dst
}

// appendQuoted appends s in double quotes; a quote or a backslash of its own is escaped.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '"' || r == '\\' {
			dst = append(dst, '\\')
		}
		dst = appendRune(dst, s[i:i+n], r, n)
		i += n
	}
	return append(dst, '"')
}

// appendWord appends one word of a command, quoted if it would not stand for itself in a shell.
func appendWord(dst []byte, s string) []byte {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_-./=:,@%+^", r))
	}
	if s != "" && strings.IndexFunc(s, special) < 0 {
		return append(dst, s...)
	}
	return appendQuoted(dst, s)
}

func appendRune(dst []byte, text string, r rune, n int) []byte {
	switch {
	case r == utf8.RuneError && n == 1:
		return fmt.Appendf(dst, `\x%02x`, text[0])
	case audit.Printable(r):
		return append(dst, text...)
	case r == '\n':
		return append(dst, `\n`...)
	case r == '\t':
		return append(dst, `\t`...)
	case r < 0x80:
		return fmt.Appendf(dst, `\x%02x`, r)
	}
	return fmt.Appendf(dst, `\u{%x}`, r)
}
