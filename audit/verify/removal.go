// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

// span is the numbers of segments that were removed on purpose, one after the other.
type span struct{ from, to int }

// isRemoved tells whether a segment was removed on purpose.
func (h *history) isRemoved(number int) bool {
	return slices.ContainsFunc(h.removed, func(s span) bool { return s.from <= number && number <= s.to })
}

// readRemovals reads what retention says that it has removed. It is to be read after the segments were listed: the line is written first.
func (s *subject) readRemovals(h *history) {
	file, err := fsys.OpenRegular(filepath.Join(s.dir, manifest.RemovalsName))
	if errors.Is(err, fs.ErrNotExist) || len(s.keys) == 0 || h.lines == 0 {
		return
	}
	if err != nil {
		s.unreadable(manifest.RemovalsName, err)
		return
	}
	defer file.Close()
	r := journal.NewReader(file, manifest.RemovalsContext, s.keys)
	for {
		var line manifest.Removal
		err := r.Next(&line)
		if errors.Is(err, io.EOF) {
			break
		}
		var wrong *journal.Fault
		if err == nil {
			if bad := line.Check(h.id); bad != nil {
				err = &journal.Fault{Line: line.Line, Offset: r.Begin(), Err: bad}
			}
		}
		if errors.As(err, &wrong) {
			s.add(journalFinding(manifest.RemovalsName, RemovalsChanged, wrong))
			return
		}
		if err != nil {
			s.unreadable(manifest.RemovalsName, err)
			return
		}
		h.remove(span{line.From, line.To})
	}
	if n := r.Torn(); n > 0 { // retention was killed, and will say it again
		s.add(Finding{Severity: Note, Code: TornTail, File: manifest.RemovalsName, Offset: r.Offset(), Message: fmt.Sprintf("%d bytes at the end are no whole line", n)})
	}
}

// remove keeps one span of those that follow each other.
func (h *history) remove(s span) {
	if n := len(h.removed); n > 0 && s.from <= h.removed[n-1].to+1 && s.from >= h.removed[n-1].from {
		h.removed[n-1].to = max(h.removed[n-1].to, s.to)
		return
	}
	h.removed = append(h.removed, s)
}

// files is what there is of a stream that retention may change.
type files struct {
	segments []string
	removals int64
}

func (s *subject) filesNow() (f files) {
	segments, _ := stream.Segments(s.dir)
	for _, one := range segments {
		f.segments = append(f.segments, one.Path)
	}
	if info, err := os.Lstat(filepath.Join(s.dir, manifest.RemovalsName)); err == nil {
		f.removals = info.Size()
	}
	return f
}

// retained tells whether retention was at work since: then what seemed to be wrong may have come from that.
func (f files) retained(now files) bool {
	return f.removals != now.removals || slices.ContainsFunc(f.segments, func(path string) bool { return !slices.Contains(now.segments, path) })
}
