// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

const (
	head = `{"v":1,"time":"2026-11-21T10:31:09.802000001Z","seq":5,"node":"n","namespace":"ns","pod":"p","podUID":"u",` +
		`"container":"c","containerID":"i","exec":"","profile":"f","profileDigest":"d"`
	oom   = head + `,"kind":"oom","count":1,"memoryLimit":2`
	chain = `,"chain":"abc"`
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, line, err, strictErr string }{
		{"as written", oom + "}", "", ""},
		{"with newline", oom + "}\n", "", ""},
		{"with chain", oom + chain + "}\n", "", ""},
		{"newer field", oom + `,"swapLimit":3}`, "", "not in the form"},
		{"newer kind", head + `,"kind":"network","address":"::1"}`, "", "not a known kind"},
		{"repeated field", oom + `,"count":2}`, "", "not in the form"},
		{"other case", strings.Replace(oom, `"seq"`, `"Seq"`, 1) + "}", "", "not in the form"},
		{"blanks", oom + ` }`, "", "not in the form"},
		{"out of order", oom + `,"v":1}`, "", "not in the form"},
		{"field missing", head + `,"kind":"oom","count":1}`, "", "not in the form"},
		{"foreign field", oom + `,"pid":1}`, "", "not in the form"},
		{"empty", "", "unexpected end", "unexpected end"},
		{"not JSON", "hello\n", "invalid character", "invalid character"},
		{"torn", oom, "unexpected end", "unexpected end"},
		{"two", oom + "}" + oom + "}", "after top-level value", "after top-level value"},
		{"no object", `[]`, "cannot unmarshal", "cannot unmarshal"},
		{"newer version", strings.Replace(oom, `"v":1`, `"v":2`, 1) + "}", "version 2", "version 2"},
		{"no version", `{"seq":1,"kind":"oom"}`, "version 0", "version 0"},
		{"no number", strings.Replace(oom, `"seq":5`, `"seq":0`, 1) + "}", "seq or kind", "seq or kind"},
		{"no kind", head + "}", "seq or kind", "seq or kind"},
		{"no time", strings.Replace(oom, `2026-11-21T`, ``, 1) + "}", "time", "time"},
		{"wrong type", strings.Replace(oom, `"count":1`, `"count":"1"`, 1) + "}", "cannot unmarshal", "cannot unmarshal"},
		{"negative", strings.Replace(oom, `"count":1`, `"count":-1`, 1) + "}", "cannot unmarshal", "cannot unmarshal"},
		{"broken quoting", strings.Replace(oom, `"pod":"p"`, `"pod":"$'p"`, 1) + "}", "$'…' form", "$'…' form"},
		{"too long", oom + strings.Repeat(" ", audit.MaxRecord) + "}", "longer", "longer"},
	} {
		check := func(how string, parse func([]byte) (*record.Record, error), want string) {
			r, err := parse([]byte(tt.line))
			switch {
			case want == "" && err != nil:
				t.Errorf("%s, %s: %v", tt.name, how, err)
			case want == "" && (r.Seq != 5 || r.Identity.Pod != "p" || r.Event.Time.Nanosecond() != 802_000_001):
				t.Errorf("%s, %s: read %+v", tt.name, how, r)
			case want != "" && (!errors.Is(err, record.ErrForm) || !strings.Contains(err.Error(), want)):
				t.Errorf("%s, %s: error is %v, want one with %q", tt.name, how, err, want)
			}
		}
		check("Parse", record.Parse, tt.err)
		check("ParseStrict", record.ParseStrict, tt.strictErr)
	}
}

// FuzzParse: no line upsets the decoder, and what it takes strictly, it writes again as it was.
func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile("../testdata/records.ndjson")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(golden) {
		f.Add(line)
	}
	f.Add([]byte(oom + chain + "}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, err := record.Parse(line); err != nil && !errors.Is(err, record.ErrForm) {
			t.Fatalf("error %v does not wrap ErrForm", err)
		}
		r, err := record.ParseStrict(line)
		if err != nil {
			return
		}
		if got := r.Append(nil); !bytes.Equal(got, bytes.TrimSuffix(line, []byte("\n"))) {
			t.Fatalf("read  %q\nwrote %q", line, got)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	golden, err := os.ReadFile("../testdata/records.ndjson")
	if err != nil {
		b.Fatal(err)
	}
	line := bytes.SplitAfter(golden, []byte("\n"))[2]
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}
