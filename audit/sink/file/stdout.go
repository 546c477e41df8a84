// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"context"
	"io"

	"metsuke.dev/metsuke/audit/sink"
)

// Stdout implements sink.Sink. Lines are confirmed when they are written: what the reader does with them is not known.
type Stdout struct {
	to  io.Writer
	out *bufio.Writer
}

// NewStdout returns a sink that writes to w.
func NewStdout(w io.Writer) *Stdout { return &Stdout{w, bufio.NewWriterSize(w, 64<<10)} }

// Send implements sink.Sink. It blocks while the reader does not read, whatever ctx says.
func (s *Stdout) Send(_ context.Context, batch []sink.Record) error {
	s.out.Reset(s.to)
	for i := range batch {
		if _, err := s.out.Write(batch[i].Line); err != nil {
			return err
		}
		if err := s.out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// Check implements sink.Sink.
func (s *Stdout) Check(context.Context) error { return nil }

// Close implements sink.Sink.
func (s *Stdout) Close(context.Context) error { return nil }
