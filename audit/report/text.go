// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit/timeline"
)

// maxText bounds what is shown of a string, in bytes before escaping.
const maxText = 240

// Text is a string of somebody else's as a page shows it: characters that control something, or change the direction of text, are visible.
type Text struct {
	S   string
	Cut bool // S is only the beginning
}

func text(s string) Text {
	shown := head(s, maxText)
	return Text{S: strings.Clone(timeline.Escape(shown)), Cut: len(shown) < len(s)}
}

// head is the first n bytes of s, cut at a character's boundary.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// short is the beginning of a digest or an id, which is enough to tell it by.
func short(s string) Text { return text(head(s, shownDigest)) }

// Short tells whether the text is best kept on one line.
func (t Text) Short() bool { return len(t.S) <= 32 }

func texts(list []string) []Text {
	out := make([]Text, 0, len(list))
	for _, s := range list {
		out = append(out, text(s))
	}
	return out
}

// words is a command in one text.
func words(argv []string, truncated bool) Text {
	t := text(strings.Join(argv, " "))
	t.Cut = t.Cut || truncated
	return t
}

// number writes a count with its thousands set apart.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// between writes a count that may be too high by over.
func between(n, over uint64) string {
	if over == 0 {
		return number(n)
	}
	return number(n-over) + " to " + number(n)
}

// many writes a count of something.
func many(n uint64, what string) string { return number(n) + " " + noun(n, what) }

func noun(n uint64, what string) string {
	switch {
	case n == 1:
		return what
	case strings.HasSuffix(what, "s"):
		return what + "es"
	}
	return what + "s"
}

// Moment is a time as a page shows it.
type Moment struct {
	Short   string // time of day, with the date where the page is of more than one
	Machine string // RFC 3339
}

// clock writes times, in UTC.
type clock struct{ days bool } // the page is of more than one day

func (c clock) at(nanos int64) *Moment {
	if nanos < 0 {
		return nil
	}
	t := time.Unix(0, nanos).UTC()
	form := "15:04:05.000"
	if c.days {
		form = "2006-01-02 15:04:05"
	}
	return &Moment{t.Format(form), t.Format(time.RFC3339Nano)}
}

// length writes a duration for people.
func length(nanos int64) string {
	d := time.Duration(nanos)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
