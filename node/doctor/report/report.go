// SPDX-License-Identifier: Apache-2.0

// Package report is what the doctor says of a node, for programs and for people. It is apart from the doctor, which runs on nodes alone.
package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
)

// Severity is how bad a finding is.
type Severity string

// The severities. Only Fail says that something Metsuke promises does not hold, or that pods do not start.
const (
	OK   Severity = "ok"
	Warn Severity = "warn"
	Fail Severity = "fail"
	Skip Severity = "skip" // it could not be found out
)

// Finding is what a check found of one subject. Its texts may repeat what others wrote, with everything escaped that a terminal
// would act on.
type Finding struct {
	Check    string   `json:"check"`
	Subject  string   `json:"subject,omitempty"` // the handler or the configuration file that it is about; empty: the node
	Severity Severity `json:"severity"`
	Found    string   `json:"found"`            // how things are
	Breaks   string   `json:"breaks,omitempty"` // what comes of it; never empty with Warn and Fail
	Fix      string   `json:"fix,omitempty"`    // the command, or the change of which file; never empty with Warn and Fail
	File     string   `json:"file,omitempty"`   // where the fix applies, if it is in a file
	Line     int      `json:"line,omitempty"`   // from 1; 0 if not known
}

// Repair is what was done about a finding.
type Repair struct {
	Check   string `json:"check"`
	Subject string `json:"subject,omitempty"`
	Did     string `json:"did,omitempty"`
	Error   string `json:"error,omitempty"` // why it could not be done
}

// Report is what was found, in the order of the checks.
type Report struct {
	Version  string    `json:"version"` // of the Metsuke that looked
	Repairs  []Repair  `json:"repairs,omitempty"`
	Findings []Finding `json:"findings"`
}

// Count returns how many findings are of a severity.
func (r *Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Healthy says that nothing failed, as every repair did not either.
func (r *Report) Healthy() bool {
	for _, m := range r.Repairs {
		if m.Error != "" {
			return false
		}
	}
	return r.Count(Fail) == 0
}

// Clean makes all texts of the report harmless to a terminal, and bounds them.
func (r *Report) Clean() {
	r.Version = Clean(r.Version)
	for i, m := range r.Repairs {
		r.Repairs[i] = Repair{Clean(m.Check), Clean(m.Subject), Clean(m.Did), Clean(m.Error)}
	}
	for i, f := range r.Findings {
		r.Findings[i] = f.Clean()
	}
}

// Write writes the report for people. Its texts are to be clean: what was mended, one line a finding, then what is wrong in full, with its fix.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	for _, m := range r.Repairs {
		if m.Error != "" {
			fmt.Fprintf(&b, "not mended: %s: %s\n", Heading(m.Check, m.Subject), m.Error)
		} else {
			fmt.Fprintf(&b, "mended: %s: %s\n", Heading(m.Check, m.Subject), m.Did)
		}
	}
	if len(r.Repairs) > 0 {
		b.WriteByte('\n')
	}
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tSUBJECT\tRESULT\tFOUND")
	for _, f := range r.Findings {
		subject := f.Subject
		if subject == "" {
			subject = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Check, subject, f.Severity, f.Found)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if f.Severity == Fail || f.Severity == Warn {
			fmt.Fprintf(&b, "\n%s: %s: %s\n", f.Severity, Heading(f.Check, f.Subject), f.Found)
			f.Detail(&b)
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d to be looked at, %d failed, %d skipped\n", r.Count(OK), r.Count(Warn), r.Count(Fail), r.Count(Skip))
	_, err := io.WriteString(w, b.String())
	return err
}

// Detail writes what comes of a finding, and what to do.
func (f Finding) Detail(b *strings.Builder) {
	if f.File != "" {
		at := f.File
		if f.Line > 0 {
			at += ":" + strconv.Itoa(f.Line)
		}
		fmt.Fprintf(b, "  at      %s\n", at)
	}
	fmt.Fprintf(b, "  breaks  %s\n", f.Breaks)
	fmt.Fprintf(b, "  fix     %s\n", f.Fix)
}

// Heading is what a finding or a repair is about.
func Heading(check, subject string) string {
	if subject == "" {
		return check
	}
	return check + ", " + subject
}

// maxText bounds a text of a finding, in bytes: some repeat what a program said.
const maxText = 4 << 10

// Clean returns the finding with its texts in one line and harmless to a terminal.
func (f Finding) Clean() Finding {
	for _, s := range []*string{&f.Check, &f.Subject, (*string)(&f.Severity), &f.Found, &f.Breaks, &f.Fix, &f.File} {
		*s = Clean(*s)
	}
	return f
}

// Clean returns a text in one line, harmless to a terminal, and bounded.
func Clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case audit.Printable(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
