// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"metsuke.dev/metsuke/audit/record"
)

// auditWords runs the command and returns its lines with single blanks between words.
func auditWords(t *testing.T, args ...string) (lines []string) {
	t.Helper()
	out, errs, err := auditRun(t.Context(), args...)
	if err != nil || errs != "" {
		t.Fatalf("%q: %v, stderr %q", args, err, errs)
	}
	if strings.ContainsAny(out, "\x1b\u202e") {
		t.Fatalf("%q: a terminal would act on %q", args, out)
	}
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestAuditQuery(t *testing.T) {
	dir, index := auditStreams(t), filepath.Join(t.TempDir(), "index")
	const (
		start = "2026-11-21T10:31:07.114Z default/coder[agent] - 0 start filter 3f9c in force, pids ≤ 256"
		exec  = `2026-11-21T10:31:07.116Z default/coder[agent] - 0 allowed execve("/bin/x\x1b[2J")`
		exit  = "2026-11-21T10:31:07.119Z team-a/other[main] - - exit status 1"
		bpf   = "2026-11-21T10:31:07.123Z default/coder[agent] - 0 denied bpf() EPERM baseline/no-bpf"
	)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{nil, []string{start, exec, exit, bpf}},
		{[]string{"coder"}, []string{start, exec, bpf}},
		{[]string{"--namespace", "team-a"}, []string{exit}},
		{[]string{"--path", "/bin/*"}, []string{exec}},
		{[]string{"--path", "/etc/*", "--path", "/bin/x**"}, []string{exec}},
		{[]string{"--path", "/etc/*"}, nil},
		{[]string{"--addr", ":443"}, nil},
		{[]string{"--syscall", "bpf,execve", "--verdict", "denied"}, []string{bpf}},
		{[]string{"--exec", "-", "--kind", "exit"}, []string{exit}},
		{[]string{"--exec", "e1"}, nil},
		{[]string{"--profile", "coder"}, nil},
		{[]string{"--process", "77"}, nil},
	} {
		got := auditWords(t, append([]string{"query", "--dir", dir, "--index", index}, tt.args...)...)
		if len(tt.want) > 0 {
			if len(got) == 0 || got[0] != "TIME POD EXEC PID VERDICT WHAT" {
				t.Errorf("%q prints %q", tt.args, got)
				continue
			}
			got = got[1:]
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%q prints\n%s\nwant\n%s", tt.args, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	for _, line := range auditWords(t, "query", "--dir", dir, "--index", index, "-o", "json", "--kind", "exit") {
		if r, err := record.ParseStrict([]byte(line)); err != nil || r.Seq != 1 {
			t.Errorf("%v: %s", err, line)
		}
	}
	for _, line := range auditWords(t, "query", "--dir", dir, "--index", "", "-o", "ocsf") {
		if !json.Valid([]byte(line)) || !strings.Contains(line, `"class_uid":`) {
			t.Errorf("no event: %s", line)
		}
	}
	if wide := auditWords(t, "query", "--dir", dir, "-o", "wide", "--syscall", "bpf"); len(wide) != 2 || !strings.HasPrefix(wide[0], "TIME SEQ NODE POD PROFILE EXEC PID PPID UID PROGRAM CLASS") {
		t.Errorf("wide: %q", wide)
	}
}

func TestAuditStats(t *testing.T) {
	dir := auditStreams(t)
	text := strings.Join(auditWords(t, "stats", "--dir", dir, "--index", ""), "\n")
	for _, want := range []string{"4 records of 2 containers in 2 pods", "exec 1 0 0", "1 bpf by baseline/no-bpf", `1 /bin/x\x1b[2J`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
	var page struct{ Records int }
	if err := json.Unmarshal([]byte(auditWords(t, "stats", "--dir", dir, "-o", "json", "coder")[0]), &page); err != nil || page.Records != 3 {
		t.Errorf("%v: %+v", err, page)
	}
}

func TestAuditTree(t *testing.T) {
	dir := auditStreams(t)
	text := strings.Join(auditWords(t, "tree", "--dir", dir, "--index", "", "coder"), "\n")
	if !strings.Contains(text, "default/coder[agent] container c1") || !strings.Contains(text, `/bin/x\x1b[2J?`) {
		t.Error(text)
	}
	if lines := auditWords(t, "tree", "--dir", dir, "-o", "json"); len(lines) != 1 || !strings.Contains(lines[0], `"parent":null`) {
		t.Errorf("%q", lines)
	}
}

// Without a place for its index a query does its work, and says so; whoever may read but not write changes nothing where the streams are.
func TestAuditIndex(t *testing.T) {
	dir := auditStreams(t)
	place := t.TempDir()
	if err := os.Chmod(place, 0o777); err != nil {
		t.Fatal(err)
	}
	out, errs, err := auditRun(t.Context(), "query", "--dir", dir, "--index", place)
	if err != nil || !strings.Contains(errs, "without an index") || strings.Count(out, "\n") != 5 {
		t.Errorf("%v, stderr %q, stdout %q", err, errs, out)
	}
}

// Values of flags are completed, behind those that a word has already.
func TestAuditCompletion(t *testing.T) {
	for _, tt := range []struct{ flag, word, want string }{
		{"--verdict", "", "denied"}, {"--verdict", "denied,", "denied,killed"}, {"--kind", "s", "syscall"}, {"--class", "file-", "file-delete"},
		{"--output", "", "ocsf"}, {"--exec", "", "-"},
	} {
		var out, errs bytes.Buffer
		if code := run([]string{"__completeNoDesc", "audit", "query", tt.flag, tt.word}, nil, &out, &errs); code != 0 {
			t.Errorf("%s %s: %d %s", tt.flag, tt.word, code, errs.String())
		}
		if !slices.Contains(strings.Split(out.String(), "\n"), tt.want) {
			t.Errorf("%s %s completes to %q, want %s", tt.flag, tt.word, out.String(), tt.want)
		}
	}
}
