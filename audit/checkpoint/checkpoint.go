// SPDX-License-Identifier: Apache-2.0

// Package checkpoint keeps how far each sink has confirmed each stream: a file for each sink, which the shipper alone writes, and which
// says to retention what may be removed.
//
// A file is lines of JSON: first what it is, then one for each stream, then how many these were, so that a file that was cut is not taken for
// a whole one. It is replaced as a whole, by rename(2).
package checkpoint

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// DefaultDir is where the shipper keeps checkpoints, unless its configuration says otherwise.
const DefaultDir = "/var/lib/metsuke/ship"

// Version is the value of field "v" of the first line.
const Version = 1

// Bounds of a file. A node with more streams than this keeps them without retention.
const (
	MaxMarks = 200_000
	maxLine  = 4096
)

const (
	suffix    = ".checkpoint"
	temporary = ".tmp"
)

// nameForm is that of a sink's name.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ValidName tells whether a sink may be called so: 1 to 63 lower-case letters, digits and "-", which is neither first nor last.
func ValidName(name string) bool { return nameForm.MatchString(name) }

// Mark says how far a stream is confirmed: all records up to Seq are stored by the sink, or were told to it as a gap.
type Mark struct {
	Stream string `json:"stream"` // its directory below the root: <namespace>_<pod>_<uid>/<container>; "ledger" for the node's ledger
	ID     string `json:"id"`     // of the stream, as in its manifest; empty: it has none. The same directory with another id is another stream.
	Seq    uint64 `json:"seq"`    // of the last record; of the ledger, its line
	Chain  string `json:"chain"`  // that record's, 64 hex digits; of the ledger, the line's SHA-256
	// At is where the next record begins, in the segment or behind its end.
	At   stream.Position `json:"at"`
	Head uint64          `json:"head,omitempty"` // number of the last head that was sent
}

// Checkpoint is what one sink has confirmed. It is not safe for concurrent use.
type Checkpoint struct {
	Sink  string
	Marks map[string]Mark // by Mark.Stream
}

// Confirmed returns up to which number the records of a stream are confirmed: 0 if none is, or if those were of another stream that had
// the same directory.
func (c *Checkpoint) Confirmed(dir, id string) uint64 {
	if m, ok := c.Marks[dir]; ok && m.ID == id {
		return m.Seq
	}
	return 0
}

type first struct {
	V    int    `json:"v"`
	Sink string `json:"sink"`
}

type last struct {
	Streams *int `json:"streams"`
}

func path(dir, sink string) string { return filepath.Join(dir, sink+suffix) }

// Load reads the checkpoint of a sink in dir. The error wraps fs.ErrNotExist if there is none, and so nothing is confirmed. A file that is
// not as Save has written it is an error.
func Load(dir, sink string) (*Checkpoint, error) {
	if !ValidName(sink) {
		return nil, fmt.Errorf("checkpoint: %q is no name of a sink", sink)
	}
	file, err := fsys.OpenRegular(path(dir, sink))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer file.Close()
	c, err := read(file, sink)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", file.Name(), err)
	}
	return c, nil
}

// read reads a file. Nothing is passed over: who believes a wrong one deletes records that nobody has.
func read(r io.Reader, sink string) (*Checkpoint, error) {
	in := bufio.NewReaderSize(r, maxLine)
	var f first
	if err := readLine(in, &f); err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	if f.V != Version || f.Sink != sink {
		return nil, fmt.Errorf("version %d of sink %q, expected version %d of %q", f.V, f.Sink, Version, sink)
	}
	c := &Checkpoint{Sink: sink, Marks: map[string]Mark{}}
	for {
		var l struct {
			Mark
			last
		}
		if err := readLine(in, &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(c.Marks)+2, err)
		}
		if l.Streams != nil {
			if *l.Streams != len(c.Marks) {
				return nil, fmt.Errorf("%d streams, and its end says %d", len(c.Marks), *l.Streams)
			}
			break
		}
		if _, twice := c.Marks[l.Stream]; twice || l.Stream == "" || l.At.Segment < 0 || l.At.Offset < 0 || len(c.Marks) == MaxMarks {
			return nil, fmt.Errorf("line %d: no mark of a stream, a second one, or one too many", len(c.Marks)+2)
		}
		c.Marks[l.Stream] = l.Mark
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it goes on behind its end")
	}
	return c, nil
}

func readLine(in *bufio.Reader, to any) error {
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	dec := json.NewDecoder(strings.NewReader(string(line)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one value")
	}
	return nil
}

// Save replaces the checkpoint in dir, which is made if need be (mode 0700). When it returns nil, the new one survives a power failure; when
// it fails, the old one is there.
func (c *Checkpoint) Save(dir string) error {
	if err := c.save(dir); err != nil {
		return fmt.Errorf("save checkpoint of sink %s: %w", c.Sink, err)
	}
	return nil
}

func (c *Checkpoint) save(dir string) (err error) {
	if !ValidName(c.Sink) || len(c.Marks) > MaxMarks {
		return fmt.Errorf("no name of a sink, or more than %d streams", MaxMarks)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	to := path(dir, c.Sink)
	file, err := os.OpenFile(to+temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(c.write(file), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(to+temporary, to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to+temporary))
	}
	return fsys.SyncDir(dir)
}

func (c *Checkpoint) write(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(first{Version, c.Sink}); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Marks)) {
		if err := enc.Encode(c.Marks[name]); err != nil {
			return err
		}
	}
	n := len(c.Marks)
	if err := enc.Encode(last{&n}); err != nil {
		return err
	}
	return out.Flush()
}

// Sinks returns the names of the sinks that have a checkpoint in dir, in their order. A directory that does not exist has none.
func Sinks(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && ValidName(name) && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}
