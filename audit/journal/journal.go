// SPDX-License-Identifier: Apache-2.0

// Package journal keeps a file of signed lines, each of which names the one before by its hash: lines can be added at the end, and
// nothing else can be done to it unseen, but for cutting its end. What must not be cut off is told elsewhere: by a stream's head, or
// by the other journals of the node.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"metsuke.dev/metsuke/audit/signature"
)

const (
	// Version is the value of field "v" of all lines.
	Version = 1
	// MaxLine is the size of the longest line, in bytes, its newline included.
	MaxLine = 16 << 10
)

// Zero is what the first line names as the one before it.
const Zero = "0000000000000000000000000000000000000000000000000000000000000000"

// Place is what each line begins with. A statement embeds it; Append fills it in.
type Place struct {
	Version  int       `json:"v"`
	Line     uint64    `json:"line"`     // its number, from 1
	Previous string    `json:"previous"` // SHA-256 of the line before with its newline, 64 hex digits
	Time     time.Time `json:"time"`     // when it was written, UTC
}

func (p *Place) place() *Place { return p }

// A Statement is a struct that embeds Place and has fields of its own, which encode as JSON.
type Statement interface{ place() *Place }

// Journal appends to a file. It is for one goroutine and one process at a time: whoever opens it holds a lock.
type Journal struct {
	file    *os.File
	context string
	size    int64
	line    uint64
	hash    string // of the last line
	last    []byte
	torn    bool // the file is longer than size: a failed write could not be undone yet

	write func(*os.File, []byte) (int, error) // (*os.File).Write; tests inject faults
}

// Open takes a file that is open for reading and appending, cuts a last line that a crash left without its newline, or with zeros where a
// power failure took its blocks, and reads the last whole one. No more of the file is read, unless that line is damaged. context is what
// signatures are made for.
func Open(file *os.File, context string) (*Journal, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, context: context, hash: Zero, write: (*os.File).Write}
	if j.size, err = wholeLines(file, info.Size()); err != nil {
		return nil, err
	}
	j.torn = j.size < info.Size()
	if err := errors.Join(j.repair(), j.readLast()); err != nil {
		return nil, err
	}
	return j, nil
}

// wholeLines returns the offset behind the last line that a crash has left whole.
func wholeLines(file io.ReaderAt, size int64) (int64, error) {
	end, err := LineStart(file, size)
	if err != nil || end == 0 {
		return end, err
	}
	start, err := LineStart(file, end-1)
	if err != nil || end-start > MaxLine {
		return end, err
	}
	line := make([]byte, end-start)
	if _, err := file.ReadAt(line, start); err != nil {
		return 0, err
	}
	if bytes.IndexByte(line, 0) >= 0 { // JSON has none
		return start, nil
	}
	return end, nil
}

// LastLine returns the last whole line of a journal with its newline, without judging or changing anything; nil if there is none, or it is
// too long to be one.
func LastLine(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	end, err := wholeLines(file, info.Size())
	if err != nil || end == 0 {
		return nil, err
	}
	start, err := LineStart(file, end-1)
	if err != nil || end-start > MaxLine {
		return nil, err
	}
	line := make([]byte, end-start)
	_, err = file.ReadAt(line, start)
	return line, err
}

// readLast learns the number and the hash of the last line. One that cannot be read is no reason to stop: it stays as it is, for whoever
// verifies, and the next one follows it.
func (j *Journal) readLast() error {
	if j.size == 0 {
		return nil
	}
	start, err := LineStart(j.file, j.size-1)
	if err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(j.file, start, j.size-start)); err != nil {
		return err
	}
	j.hash = hex.EncodeToString(hash.Sum(nil))
	if j.size-start <= MaxLine {
		line := make([]byte, j.size-start)
		if _, err := j.file.ReadAt(line, start); err != nil {
			return err
		}
		var p Place
		if json.Unmarshal(line, &p) == nil && p.Line > 0 && p.Version == Version {
			j.line, j.last = p.Line, line
			return nil
		}
	}
	j.line, err = countLines(io.NewSectionReader(j.file, 0, j.size))
	return err
}

// Last is the last line as Open found it; nil if there was none, or it could not be read.
func (j *Journal) Last() []byte { return j.last }

// Line is the number of the last line, 0 if there is none, and Hash its SHA-256, as the next one names it.
func (j *Journal) Line() uint64 { return j.line }

// Hash is described at Line.
func (j *Journal) Hash() string { return j.hash }

// Append signs a statement and adds it, with one write(2). When it fails the journal is as before, and the same statement can be tried
// again. It does not sync.
func (j *Journal) Append(key *signature.Key, s Statement) error {
	if err := j.repair(); err != nil {
		return err
	}
	*s.place() = Place{Version: Version, Line: j.line + 1, Previous: j.hash, Time: time.Now().UTC()}
	object, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("%s: %w", j.file.Name(), err)
	}
	line := key.Sign(j.context, object)
	if len(line) > MaxLine {
		return fmt.Errorf("%s: a line of %d bytes, more than %d", j.file.Name(), len(line), MaxLine)
	}
	if _, err := j.write(j.file, line); err != nil {
		j.torn = true
		return errors.Join(fmt.Errorf("write %s: %w", j.file.Name(), err), j.repair())
	}
	sum := sha256.Sum256(line)
	j.size, j.line, j.hash = j.size+int64(len(line)), j.line+1, hex.EncodeToString(sum[:])
	return nil
}

// repair cuts what a failed write left behind.
func (j *Journal) repair() error {
	if !j.torn {
		return nil
	}
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("undo a failed write: %w", err)
	}
	j.torn = false
	return nil
}

// LineStart returns the offset behind the last newline before end, or 0.
func LineStart(r io.ReaderAt, end int64) (int64, error) {
	buf := make([]byte, min(end, 4096))
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := r.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

func countLines(r io.Reader) (n uint64, err error) {
	buf := make([]byte, 64<<10)
	for {
		got, err := r.Read(buf)
		n += uint64(bytes.Count(buf[:got], []byte("\n")))
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
