// SPDX-License-Identifier: Apache-2.0

package output

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/record"
)

var r = &record.Record{Seq: 7, Identity: audit.Identity{Namespace: "a", Pod: "p", Container: "c"}, Event: audit.Event{
	Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Kind: audit.KindSyscall, Syscall: &audit.Syscall{
		PID: 41, Syscall: "unlink", Class: "file-delete", Verdict: audit.VerdictDenied,
		Args: []audit.Arg{{Name: "path", Value: "/tmp/\x1b[2J", Evidence: audit.EvidencePeeked}},
	}}}

func TestForms(t *testing.T) {
	line := append(r.Append(nil), '\n')
	for _, first := range []string{Timeline, Table} {
		forms := Forms(first)
		if len(forms) != 5 || forms[0] != first {
			t.Errorf("the forms are %v", forms)
		}
		for _, form := range forms {
			var out bytes.Buffer
			p, err := New(form, &out, false)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Print(r, line); err != nil {
					t.Fatal(err)
				}
			}
			if out.Len() != 0 && form != OCSF {
				t.Errorf("%s: written before Flush", form)
			}
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
			want := map[string]int{Timeline: 3, Table: 3, Wide: 3, JSON: 2, OCSF: 4}[form]
			if lines := bytes.Count(out.Bytes(), []byte("\n")); lines != want || !strings.Contains(out.String(), "unlink") || strings.Contains(out.String(), "\x1b") {
				t.Errorf("%s: %d lines, want %d:\n%s", form, lines, want, out.String())
			}
			if form == JSON && out.String() != strings.Repeat(string(line), 2) {
				t.Errorf("not as it is: %s", out.String())
			}
		}
	}
	if _, err := New("xml", nil, false); err == nil {
		t.Error("there is a form xml")
	}
}

// What a terminal would act on is an escape, and JSON says the same as before.
func TestLines(t *testing.T) {
	for _, line := range []string{
		`{"a":"b"}`, "{\"a\":\"\x7f\u009b\u202e\U000e0001\"}", "{\"a\":\t1}\r\n", "{\"a\":\"\xff\"}", "{\n\"a\":2}\n", `{"a":"ü\u001b"}`,
	} {
		got := appendLine(nil, []byte(line))
		text, ok := bytes.CutSuffix(got, []byte("\n"))
		for _, c := range string(text) {
			ok = ok && audit.Printable(c)
		}
		var before, after any
		if err := json.Unmarshal([]byte(line), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &after); err != nil || !ok || cmp.Diff(before, after) != "" {
			t.Errorf("%q is written as %q: %v", line, got, err)
		}
	}
}
