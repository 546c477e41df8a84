// SPDX-License-Identifier: Apache-2.0

// Package terminal writes what commands print.
package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// Is tells whether w is a terminal that can move its cursor.
func Is(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// Color tells whether w is a terminal whose user did not refuse colours (https://no-color.org).
func Color(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && Is(w) }

// Table writes rows under a heading, in columns.
func Table(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		if _, err := fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// JSON writes a value for programs, indented, and with text as it is: not made ready for HTML.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A Printer writes until its first error.
type Printer struct {
	W   io.Writer
	Err error
}

// F is fmt.Fprintf.
func (p *Printer) F(format string, args ...any) {
	if p.Err == nil {
		_, p.Err = fmt.Fprintf(p.W, format, args...)
	}
}

// Table is the function Table.
func (p *Printer) Table(heading []string, rows [][]string) {
	if p.Err == nil {
		p.Err = Table(p.W, heading, rows)
	}
}
