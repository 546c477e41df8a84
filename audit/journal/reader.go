// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"metsuke.dev/metsuke/audit/signature"
)

// What is wrong with a line, beside its signature (see package signature).
var (
	ErrLong    = fmt.Errorf("longer than %d bytes", MaxLine)
	ErrVersion = fmt.Errorf("of a version that this program does not read, which is %d", Version)
	ErrOrder   = errors.New("does not follow the line before it: lines are missing, or were moved")
)

// Fault says which line is wrong, and why.
type Fault struct {
	Line   uint64 // the number that it should have
	Offset int64
	Err    error
}

// Error implements error.
func (f *Fault) Error() string { return fmt.Sprintf("line %d, offset %d: %v", f.Line, f.Offset, f.Err) }

// Unwrap returns the reason.
func (f *Fault) Unwrap() error { return f.Err }

// Reader reads a journal and checks each line. It takes constant memory, and is for one goroutine.
type Reader struct {
	in      *bufio.Reader
	context string
	keys    signature.Ring
	trusted bool
	line    uint64
	hash    string
	begin   int64 // offset of the last line
	offset  int64 // behind the last line
	torn    int64
}

// NewReader reads from the first line on.
func NewReader(r io.Reader, context string, keys signature.Ring) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, MaxLine), context: context, keys: keys, hash: Zero}
}

// NewTrusted reads lines that a Reader has found good before, without checking their signatures again.
func NewTrusted(r io.Reader) *Reader {
	reader := NewReader(r, "", nil)
	reader.trusted = true
	return reader
}

// Next decodes the next line into s, which must be new. At the end it returns io.EOF; a piece of a line there is told by Torn. Other errors are a *Fault,
// after which nothing more is read, or the file's own.
func (r *Reader) Next(s Statement) error {
	fault := func(err error) error { return &Fault{r.line + 1, r.offset, err} }
	line, err := r.in.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		r.torn = int64(len(line))
		return io.EOF
	case errors.Is(err, bufio.ErrBufferFull):
		return fault(ErrLong)
	case err != nil:
		return err
	}
	if !r.trusted {
		if _, err := r.keys.Check(r.context, line); err != nil {
			return fault(err)
		}
	}
	if err := json.Unmarshal(line, s); err != nil {
		return fault(fmt.Errorf("%w: %w", signature.ErrForm, err))
	}
	p := s.place()
	switch {
	case p.Version != Version:
		return fault(ErrVersion)
	case p.Line != r.line+1 || p.Previous != r.hash:
		return fault(ErrOrder)
	}
	sum := sha256.Sum256(line)
	r.line, r.hash, r.begin, r.offset = p.Line, hex.EncodeToString(sum[:]), r.offset, r.offset+int64(len(line))
	return nil
}

// Line is the number of the last line that was read, and Hash its SHA-256.
func (r *Reader) Line() uint64 { return r.line }

// Hash is described at Line.
func (r *Reader) Hash() string { return r.hash }

// Begin is the offset of the last line that was read, Offset the one behind it.
func (r *Reader) Begin() int64 { return r.begin }

// Offset is described at Begin.
func (r *Reader) Offset() int64 { return r.offset }

// Torn is how many bytes at the end are no whole line.
func (r *Reader) Torn() int64 { return r.torn }
