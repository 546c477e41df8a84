// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit/index"
)

// maxPattern bounds a pattern, in bytes.
const maxPattern = 512

// Path is a pattern of paths, which must fit a path from its beginning to its end. Of its characters "*" stands for any number of
// any but "/", "**" for any number of any, "?" for one but "/", and "\" takes the next one's meaning away.
//
// A path is fitted as the caller showed it, and as it is without "//", "." and "..": /etc/./shadow is found by /etc/shadow. One that
// is not absolute is fitted as it is: which directory it begins in is not in a record.
type Path struct {
	text   string
	prefix string         // what each path that fits begins with
	inner  string         // and what it holds somewhere
	whole  *regexp.Regexp // nil: the prefix is all
}

// ParsePath reads a pattern.
func ParsePath(text string) (Path, error) {
	switch {
	case text == "":
		return Path{}, errors.New("a pattern must not be empty")
	case len(text) > maxPattern:
		return Path{}, fmt.Errorf("a pattern has %d bytes at most", maxPattern)
	case !utf8.ValidString(text):
		return Path{}, errors.New("a pattern must be UTF-8")
	}
	p := Path{text: text}
	var expression, literal strings.Builder
	first := true
	wildcard := func(e string) {
		if first {
			p.prefix, first = literal.String(), false
		}
		if literal.Len() > len(p.inner) {
			p.inner = literal.String()
		}
		literal.Reset()
		expression.WriteString(e)
	}
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		i += n
		switch {
		case r == '*' && strings.HasPrefix(text[i:], "*"):
			i++
			wildcard(`(?s:.*)`)
		case r == '*':
			wildcard(`[^/]*`)
		case r == '?':
			wildcard(`[^/]`)
		case r == '\\' && i == len(text):
			return Path{}, errors.New(`a pattern must not end in "\"`)
		default:
			if r == '\\' {
				r, n = utf8.DecodeRuneInString(text[i:])
				i += n
			}
			literal.WriteRune(r)
			expression.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if first {
		p.prefix = literal.String()
		return p, nil
	}
	wildcard("")
	whole, err := regexp.Compile(`\A` + expression.String() + `\z`)
	if err != nil {
		return Path{}, fmt.Errorf("a pattern that is too much: %w", err)
	}
	p.whole = whole
	return p, nil
}

// String returns the pattern as it was read.
func (p Path) String() string { return p.text }

// Equal tells whether two are the same pattern.
func (p Path) Equal(o Path) bool { return p.text == o.text }

// Match tells whether a path fits.
func (p Path) Match(s string) bool {
	if p.fits(s) {
		return true
	}
	clean := path.Clean(s)
	return clean != s && p.fits(clean)
}

func (p Path) fits(s string) bool {
	if p.whole == nil {
		return s == p.prefix
	}
	return strings.HasPrefix(s, p.prefix) && strings.Contains(s, p.inner) && p.whole.MatchString(s)
}

// mayBeIn tells whether a segment can have a record with a path that fits.
func (p Path) mayBeIn(s *index.Summary) bool {
	if p.whole == nil {
		return s.Has(index.Path, p.prefix)
	}
	above := index.Directories(p.prefix)
	return len(above) == 0 || s.Has(index.Directory, above[len(above)-1])
}
