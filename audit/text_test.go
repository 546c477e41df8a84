// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

// encodeValue returns how a record writes an argument's value, with its quotes, and whether it was cut.
func encodeValue(t *testing.T, s string) (text string, cut bool) {
	t.Helper()
	e := audit.Event{Kind: audit.KindSyscall, Syscall: &audit.Syscall{Args: []audit.Arg{{Value: s}}}}
	var got struct {
		Args []struct {
			Value     json.RawMessage
			Truncated bool
		}
	}
	unmarshal(t, e.AppendJSON(nil, &identity, 1), &got)
	return string(got.Args[0].Value), got.Args[0].Truncated
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain", "/etc/passwd", `"/etc/passwd"`},
		{"text", "/tmp/Grüße/目付", `"/tmp/Grüße/目付"`},
		{"JSON's own", `a"b\c`, `"a\"b\\c"`},
		{"control", "a\x00\n\r\t\x1b[2J\x7f", `"a\u0000\n\r\t\u001b[2J\u007f"`},
		{"C1", "a\u009b31m", `"a\u009b31m"`},
		{"line separators", "a\u2028\u2029", `"a\u2028\u2029"`},
		{"direction", "a\u202egpj.exe", `"a\u202egpj.exe"`},
		{"tags", "a\U000e0041", `"a\udb40\udc41"`},
		{"not UTF-8", "a\xff\\'\n", `"$'a\\xff\\\\\\'\n'"`},
		{"overlong", "\xc0\xaf", `"$'\\xc0\\xaf'"`},
		{"surrogate", "\xed\xa0\x80", `"$'\\xed\\xa0\\x80'"`},
		{"looks quoted", "$'\\xff'", `"$'$\\'\\\\xff\\''"`},
		{"a dollar", "$x", `"$x"`},
		{"replacement character", "\ufffd", `"` + "\ufffd" + `"`},
	} {
		got, _ := encodeValue(t, tt.in)
		if got != tt.want {
			t.Errorf("%s: %q is written %s, want %s", tt.name, tt.in, got, tt.want)
		}
		var text string
		unmarshal(t, []byte(got), &text)
		if back, ok := audit.Unquote(text); !ok || back != tt.in {
			t.Errorf("%s: %s is read as %q, %v, want %q", tt.name, got, back, ok, tt.in)
		}
	}
}

func TestUnquoteRefuses(t *testing.T) {
	for _, s := range []string{"$'", "$'a", "$'a'b", `$'\`, `$'\x`, `$'\xg0'`, `$'\xF0'`, `$'\n'`, `$'\'`} {
		if got, ok := audit.Unquote(s); ok {
			t.Errorf("%s is read as %q, want it refused", s, got)
		}
	}
}

func TestCut(t *testing.T) {
	fit := strings.Repeat("x", audit.MaxValue-1)
	for _, tt := range []struct {
		name, in, want string
		cut            bool
	}{
		{"fits", fit + "y", fit + "y", false},
		{"one more", fit + "yz", fit + "y", true},
		{"inside a character", fit + "ü", fit, true},
		{"inside of what is no character", strings.Repeat("\x80", audit.MaxValue+1), strings.Repeat("\x80", audit.MaxValue), true},
	} {
		text, cut := encodeValue(t, tt.in)
		var s string
		unmarshal(t, []byte(text), &s)
		got, ok := audit.Unquote(s)
		if !ok || got != tt.want || cut != tt.cut {
			t.Errorf("%s: %d bytes, cut %v; want %d, %v", tt.name, len(got), cut, len(tt.want), tt.cut)
		}
	}
}

// TestPrintable compares with Unicode's own tables: nothing that Go would not print may pass.
func TestPrintable(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if audit.Printable(r) && unicode.In(r, unicode.Cc, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			t.Errorf("%U passes", r)
		}
		if !audit.Printable(r) && unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.Sc, unicode.Sk, unicode.Sm) {
			t.Errorf("%U does not pass", r)
		}
	}
}

// FuzzRoundTrip: whatever the strings and numbers hold, the record is JSON and reads back as it was.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "plain", "a\xff", "$'x'", "\u202e\x1b]0;", `"},"kind":"exit`, strings.Repeat("ü", 3000)} {
		f.Add(s, "/bin/"+s, int64(1), uint64(3), uint32(7), true)
	}
	f.Fuzz(func(t *testing.T, a, b string, nanos int64, n uint64, small uint32, flag bool) {
		id := audit.Identity{a, b, a, b, a, b, a, b}
		for _, e := range full() {
			e.Time = moment.Add(time.Duration(nanos))
			e.Exec = a
			switch {
			case e.Syscall != nil:
				*e.Syscall = audit.Syscall{PID: small, TID: small, UID: small, Comm: a, Exe: b, Syscall: a, Nr: int32(small), Arch: b,
					Args:  []audit.Arg{{a, b, audit.Evidence(a), flag}, {b, a, audit.EvidencePeeked, !flag}},
					Class: b, Verdict: audit.Verdict(b), Errno: a, RuleID: b, Origin: a}
				if n > 1 {
					e.Syscall.Count, e.Syscall.Until = n, e.Time
				}
			case e.Receipt != nil:
				e.Receipt.Image, e.Receipt.NoNewPrivs = b, flag
				e.Receipt.Limits = []audit.ReceiptLimit{{a, b, a, flag}}
			case e.Timing != nil:
				*e.Timing = audit.Timing{e.Time, a, b, a, b, a, []audit.Lap{{b, time.Duration(nanos), time.Duration(n)}, {a, 0, -1}}}
			case e.ExecStart != nil:
				e.ExecStart.Argv, e.ExecStart.Truncated = []string{a, b, "", a}, flag
			case e.Limit != nil:
				*e.Limit = audit.Limit{a, b, a, b, a}
			case e.OOM != nil:
				*e.OOM = audit.OOM{n, n}
			case e.Loss != nil:
				*e.Loss = audit.Loss{Reason: a, Count: n, Bytes: n, OnLoss: b, Detail: a}
			case e.Exit != nil:
				*e.Exit = audit.Exit{small, a, b}
			}
			line := e.AppendJSON(nil, &id, max(n, 1))
			if !utf8.Valid(line) {
				t.Fatalf("not UTF-8: %q", line)
			}
			for _, r := range string(line) {
				if !audit.Printable(r) {
					t.Fatalf("%U is not escaped in %q", r, line)
				}
			}
			got, err := record.ParseStrict(line)
			if err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			if len(a) > audit.MaxName || len(b) > audit.MaxName || 2*len(a)+len(b)+4 > audit.MaxValue {
				continue // what is cut does not read back
			}
			want := &record.Record{Seq: max(n, 1), Identity: id, Event: e}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("(-written +read)\n%s", diff)
			}
		}
	})
}
