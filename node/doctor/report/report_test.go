// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"
	"testing"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain — text":               "plain — text",
		"two\nlines\tand":            "two lines and",
		"\x1b[2J\u202e\x00\x7f":      `\x1b[2J\u202e\x00\x7f`,
		"\xff\ufffd":                 "\\xff\ufffd",
		strings.Repeat("é", maxText): strings.Repeat("é", maxText/2) + "…",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%.40q: %.60q, want %.60q", in, got, want)
		}
	}
}

// No text gets through that a terminal acts on, or that another would be shown as.
func FuzzClean(f *testing.F) {
	for _, seed := range []string{"a", "\x1b[2J", "\u202e\xff", `\x1b`, "\ufffd"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := Clean(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q is not UTF-8", out)
		}
		for _, r := range out {
			if !audit.Printable(r) {
				t.Fatalf("%q has %U", out, r)
			}
		}
	})
}
