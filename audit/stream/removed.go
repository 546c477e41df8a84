// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/internal/flock"
)

// Retention compresses and removes segments of streams (package retention). Of a stream that is not closed it leaves alone the last segment
// that has a record, and what is behind it; a closed one it locks, and may compress all of it, or remove it whole. What a writer needs of a
// segment that is not there as it was, the manifest says.

// Lock takes the stream in an existing directory as a Writer would, without waiting for one. The error wraps ErrLocked if there is one, or
// fs.ErrNotExist. Unlock gives it back.
func Lock(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := lock(dir, -1); err != nil {
		dir.Close()
		return nil, err
	}
	if !isAt(dir, path) {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: fs.ErrNotExist}, Unlock(dir))
	}
	return dir, nil
}

// Unlock gives a stream back that Lock has taken.
func Unlock(dir *os.File) error { return errors.Join(flock.Release(dir), dir.Close()) }

// isAt tells whether an open directory is still the one at a path.
func isAt(dir *os.File, path string) bool {
	open, err := dir.Stat()
	there, err2 := os.Lstat(path)
	return err == nil && err2 == nil && os.SameFile(open, there)
}

// behindCompressed goes on behind a last segment that is compressed, in the segment that t has, which is empty, or in a new one. The
// manifest's last line says where: retention compresses no last segment that has not been closed.
func behindCompressed(dir *os.File, t *tail, number int) error {
	damaged := fmt.Errorf("%s: %w: segment %d is compressed, and the manifest does not say how it ends", dir.Name(), ErrDamaged, number)
	at, end, err := lastPlace(dir)
	if err != nil {
		return errors.Join(damaged, err)
	}
	switch {
	case at.Segment == number: // closed behind it
	case t.segment != nil && at.Segment == t.number && at.Offset == 0: // opened since, and nothing was written
		end = false
	default:
		return damaged
	}
	t.seq, t.chain, t.end = at.Seq, at.Chain, end
	if t.segment == nil {
		t.number = number + 1
		t.segment, err = openAt(dir, segmentName(t.number), segmentFlags|os.O_EXCL)
	}
	if at.Segment == number {
		t.packed = &complete{number: number, last: at.Seq, after: at.Chain, bytes: at.Offset}
	}
	return err
}

// lastPlace is the place that the last line of the manifest tells of, and whether an end record is before it.
func lastPlace(dir *os.File) (at manifest.Point, end bool, err error) {
	file, err := openAt(dir, manifest.Name, os.O_RDONLY)
	if err != nil {
		return at, false, err
	}
	defer file.Close()
	var e manifest.Entry
	line, err := journal.LastLine(file)
	if err == nil {
		err = json.Unmarshal(line, &e)
	}
	switch {
	case err != nil:
	case e.Close != nil:
		at, end = e.Close.At, e.Close.End
	case e.Begin != nil:
		at = e.Begin.At
	}
	return at, end, err
}

// chainAfter is the chain of the last record of a segment, as its line in the manifest says; empty if there is none.
func chainAfter(dir *os.File, number int) string {
	file, err := openAt(dir, manifest.Name, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer file.Close()
	after := ""
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, journal.MaxLine)
	for lines.Scan() {
		var e manifest.Entry
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Segment != nil && e.Segment.Number == number {
			after = e.Segment.After
		}
	}
	return after
}
