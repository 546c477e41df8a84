// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/internal/fsys"
)

// readHead reads the stream's head. there says whether there is such a file.
func (s *subject) readHead() (heads [2]*manifest.Head, there bool) {
	file, err := fsys.OpenRegular(filepath.Join(s.dir, manifest.HeadName))
	if errors.Is(err, fs.ErrNotExist) {
		return heads, false
	}
	if err != nil {
		s.unreadable(manifest.HeadName, err)
		return heads, true
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && info.Size() == 0 { // a writer was killed before its first head, or somebody emptied it
		return heads, false
	}
	heads, errs := manifest.ReadHeads(file, s.keys)
	for i, err := range errs {
		if err == nil {
			continue
		}
		x := Finding{Severity: Fault, Code: HeadChanged, File: manifest.HeadName, Offset: int64(i) * manifest.HeadSlot, Message: err.Error()}
		var unknown *signature.UnknownKeyError
		switch {
		case errors.As(err, &unknown):
			x.Code, heads[i] = UnknownKey, nil
		case errors.Is(err, signature.ErrSignature):
			x.Code = BadSignature
		case errors.Is(err, journal.ErrVersion):
			x.Severity, x.Code = Unjudged, NewerVersion
		}
		s.add(x)
	}
	return heads, true
}

// judgeHead holds the head against the manifest.
func (s *subject) judgeHead(heads [2]*manifest.Head, h *history) {
	newest := manifest.Newest(heads)
	fault := func(head *manifest.Head, code Code, format string, args ...any) {
		s.add(Finding{Severity: Fault, Code: code, File: manifest.HeadName, Offset: slotOf(heads, head), Message: fmt.Sprintf(format, args...)})
	}
	for _, head := range heads {
		switch {
		case head == nil:
		case head.ID != h.id:
			fault(head, HeadForeign, "it belongs to the stream %s, and the manifest to %s", head.ID, h.id)
		case head.Lines > h.lines && !h.damaged:
			fault(head, ManifestTruncated, "it names line %d of the manifest, which has %d", head.Lines, h.lines)
		case head.Lines <= h.lines && head.Last != h.hashes[head.Lines]:
			fault(head, HeadForeign, "line %d of the manifest is not the one that it names", head.Lines)
		}
	}
	if newest == nil || newest.ID != h.id || h.damaged || s.headLines >= h.lines {
		return
	}
	if s.headLines+1 == h.lines {
		s.add(Finding{Severity: Note, Code: WriterKilled, File: manifest.HeadName, Offset: slotOf(heads, newest),
			Message: fmt.Sprintf("it names line %d of the manifest as the last one, and there is one more", s.headLines)})
		return
	}
	fault(newest, HeadOld, "it names line %d of the manifest as the last one, of %d", s.headLines, h.lines)
}

func slotOf(heads [2]*manifest.Head, head *manifest.Head) int64 {
	if head != nil && head == heads[1] {
		return manifest.HeadSlot
	}
	return 0
}

// headPoints are the places that the head signs for, in their order.
func headPoints(heads [2]*manifest.Head, h *history) (list []point) {
	for _, head := range heads {
		if head != nil && head.ID == h.id && !h.void(head.Lines, head.At.Seq) {
			list = append(list, point{at: head.At, file: manifest.HeadName, offset: slotOf(heads, head)})
		}
	}
	slices.SortFunc(list, func(a, b point) int { return cmp.Compare(a.at.Seq, b.at.Seq) })
	return list
}

// judgeCounters holds the file of counters of a closed stream against what its writer has signed.
func (s *subject) judgeCounters(folded uint64, size int) {
	const name = "folded"
	file, err := fsys.OpenRegular(filepath.Join(s.dir, name))
	if err != nil {
		s.add(Finding{Severity: Fault, Code: CountersChanged, File: name, Message: err.Error()})
		return
	}
	defer file.Close()
	got, err := io.ReadAll(io.LimitReader(file, int64(size)+1))
	want := binary.LittleEndian.AppendUint64(nil, folded)
	want = append(want, make([]byte, size-len(want))...)
	if err != nil || !bytes.Equal(got, want) {
		s.add(Finding{Severity: Fault, Code: CountersChanged, File: name, Message: fmt.Sprintf("it does not say that %d denials are in no record", folded)})
	}
}
