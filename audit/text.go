// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strings"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// quoteOpen begins a string that is not valid UTF-8: it is written as a shell would quote it, $'…', with
// \xNN for the bytes that JSON cannot carry. So no two names look alike, and the text can be pasted.
const quoteOpen = "$'"

// plain marks the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for b := 0x20; b < 0x7f; b++ {
		t[b] = b != '"' && b != '\\'
	}
	return t
}()

// appendString appends s as a JSON string. Only the first limit bytes count, cut at a character's
// boundary; cut tells whether there were more.
func appendString(dst []byte, s string, limit int) (_ []byte, cut bool) {
	if len(s) > limit {
		s, cut = cutString(s, limit), true
	}
	dst = append(dst, '"')
	start := len(dst)
	i := 0
	for i < len(s) && plain[s[i]] {
		i++
	}
	dst = append(dst, s[:i]...)
	if i < len(s) || strings.HasPrefix(s, quoteOpen) {
		if strings.HasPrefix(s, quoteOpen) || !utf8.ValidString(s[i:]) {
			dst = appendQuoted(dst[:start], s)
		} else {
			dst = appendEscaped(dst, s[i:])
		}
	}
	return append(dst, '"'), cut
}

// AppendString appends s as a JSON string in the form that records have: safe to print to a terminal, and exact whatever bytes s holds.
func AppendString(dst []byte, s string) []byte {
	dst, _ = appendString(dst, s, len(s))
	return dst
}

// cutString returns at most the first limit bytes of s without splitting a character.
func cutString(s string, limit int) string {
	for i := limit; i > limit-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:limit]
}

// appendEscaped appends valid UTF-8 as the inside of a JSON string.
func appendEscaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		if b := s[i]; b < utf8.RuneSelf {
			if plain[b] {
				dst = append(dst, b)
			} else {
				dst = appendEscape(dst, rune(b))
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if Printable(r) {
			dst = append(dst, s[i:i+n]...)
		} else {
			dst = appendEscape(dst, r)
		}
		i += n
	}
	return dst
}

// appendQuoted appends s, which need not be valid UTF-8, in the form $'…'. What stands inside is ASCII
// and printable characters; the backslashes of the quoting are doubled by JSON.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, quoteOpen...)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, '\\', '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case r == '\\':
			dst = append(dst, `\\\\`...)
		case r == '\'':
			dst = append(dst, `\\'`...)
		default:
			dst = appendEscaped(dst, s[i:i+n])
		}
		i += n
	}
	return append(dst, '\'')
}

func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	case '\r':
		return append(dst, '\\', 'r')
	}
	if r > 0xffff {
		r -= 0x10000
		dst = appendEscape(dst, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// Printable tells whether a character can be shown to people as it is. It cannot if it controls the
// terminal, breaks lines, or changes the direction or the look of the text around it.
func Printable(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0: // C0, DEL, C1
		return false
	case r < 0x061c: // nearly all text
		return r != 0xad // soft hyphen
	case r == 0x061c, r == 0x180e, r == 0xfeff, // marks without width
		r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, // marks, line ends, direction
		r >= 0x2060 && r <= 0x206f,
		r >= 0xd800 && r <= 0xdfff,   // surrogates
		r >= 0xfff0 && r <= 0xfffb,   // annotations
		r&0xfffe == 0xfffe,           // not characters
		r >= 0xe0000 && r <= 0xe0fff: // tags, variation selectors
		return false
	}
	return r <= utf8.MaxRune
}

// Unquote returns the bytes that a string of a record stands for: itself, unless it is in the form $'…'
// that marks bytes which are not UTF-8. ok is false for a string that the encoder cannot have written.
func Unquote(s string) (raw string, ok bool) {
	if !strings.HasPrefix(s, quoteOpen) {
		return s, true
	}
	in := s[len(quoteOpen):]
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '\'':
			return string(out), i == len(in)-1
		case in[i] != '\\':
			out = append(out, in[i])
		case i+1 < len(in) && (in[i+1] == '\\' || in[i+1] == '\''):
			out = append(out, in[i+1])
			i++
		case i+3 < len(in) && in[i+1] == 'x':
			high, low := strings.IndexByte(hexDigits, in[i+2]), strings.IndexByte(hexDigits, in[i+3])
			if high < 0 || low < 0 {
				return "", false
			}
			out = append(out, byte(high<<4|low))
			i += 3
		default:
			return "", false
		}
	}
	return "", false
}
