// SPDX-License-Identifier: Apache-2.0

// Package output writes records in the forms that users choose among. Whatever records hold, what is written is safe to print to a
// terminal.
package output

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/ocsf"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/timeline"
)

// The forms.
const (
	Timeline = "timeline" // a line each, under their day
	Table    = "table"    // a row each
	Wide     = "wide"     // a row each, with more columns
	JSON     = "json"     // as the stream has them
	OCSF     = "ocsf"     // events of the Open Cybersecurity Schema Framework, one or two for a record
)

// Forms returns the names of the forms, the given one, the default, first.
func Forms(first string) []string {
	forms := []string{Timeline, Table, Wide, JSON, OCSF}
	i := slices.Index(forms, first)
	return slices.Concat([]string{first}, forms[:i], forms[i+1:])
}

// Help says what the forms are, for the help of a flag.
const Help = "form of the output: timeline; table; wide, with more columns; json, the records as they are; ocsf, events of OCSF " + ocsf.Version

// Printer writes records in one form. Not safe for concurrent use.
type Printer struct {
	out    *bufio.Writer
	append func(dst []byte, r *record.Record, line []byte) []byte
	buf    []byte
}

// New returns a printer of a form; with color it marks verdicts of a timeline with the terminal's colours.
func New(form string, w io.Writer, color bool) (*Printer, error) {
	p := &Printer{out: bufio.NewWriterSize(w, 64<<10)}
	byRecord := func(f func([]byte, *record.Record) []byte) {
		p.append = func(dst []byte, r *record.Record, _ []byte) []byte { return f(dst, r) }
	}
	switch form {
	case Timeline:
		byRecord((&timeline.Printer{Color: color}).Append)
	case Table:
		byRecord((&timeline.Table{}).Append)
	case Wide:
		byRecord((&timeline.Table{Wide: true}).Append)
	case OCSF:
		byRecord(ocsf.Append)
	case JSON:
		p.append = func(dst []byte, _ *record.Record, line []byte) []byte { return appendLine(dst, line) }
	default:
		return nil, fmt.Errorf("output: no form %q", form)
	}
	return p, nil
}

// Print writes a record, whose line, with its newline or without, is as its stream has it.
func (p *Printer) Print(r *record.Record, line []byte) error {
	p.buf = p.append(p.buf[:0], r, line)
	_, err := p.out.Write(p.buf)
	return err
}

// Flush hands on what was written so far.
func (p *Printer) Flush() error { return p.out.Flush() }

// WriteJSON writes a value as one line of JSON.
func WriteJSON(w io.Writer, value any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return err
	}
	_, err := w.Write(appendLine(nil, line.Bytes()))
	return err
}

// appendLine appends a record's line as it is. What no Metsuke writes, though it is JSON, and a terminal acts on is an escape.
func appendLine(dst, line []byte) []byte {
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...) // as it is read
		case audit.Printable(r):
			dst = append(dst, line[i:i+n]...)
		case r < ' ': // between fields: there is none in a string
			if i < len(line)-1 {
				dst = append(dst, ' ')
			}
		default:
			quoted := audit.AppendString(nil, string(r))
			dst = append(dst, quoted[1:len(quoted)-1]...)
		}
		i += n
	}
	return append(dst, '\n')
}
