// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"bytes"
	"strings"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/ocsf"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

// batch is what is handed to a sink at once. Its memory is used again for the next one.
type batch struct {
	form    config.Form
	limit   config.Batch
	records []sink.Record
	arena   []byte // the lines
	size    int64  // of the lines
	losses  map[Reason]uint64
	damages uint64
}

func (b *batch) reset() {
	clear(b.records)
	b.records, b.arena, b.size, b.damages = b.records[:0], b.arena[:0], 0, 0
	clear(b.losses)
}

// fits tells whether a line of so many bytes may be added. The first one always may.
func (b *batch) fits(n int) bool {
	return len(b.records) == 0 || len(b.records) < b.limit.Records && b.size+int64(n) <= b.limit.Bytes
}

func (b *batch) full() bool {
	return len(b.records) >= b.limit.Records || b.size >= b.limit.Bytes
}

// add adds a record of a stream, which line is the line of.
func (b *batch) add(stream string, id *audit.Identity, r *record.Record, line []byte) {
	out := sink.Record{
		ID: strings.Clone(r.Chain), Stream: stream, Identity: id, Seq: r.Seq, Time: r.Event.Time, Kind: r.Event.Kind, Verdict: verdict(r),
	}
	start := len(b.arena)
	if b.form != config.FormOCSF {
		b.arena = append(b.arena, bytes.TrimSuffix(line, []byte("\n"))...)
		out.Line = b.arena[start:len(b.arena):len(b.arena)]
		b.put(out)
		return
	}
	b.arena = ocsf.Append(b.arena, r)
	for event := range bytes.Lines(b.arena[start:]) {
		out.Line = event[: len(event)-1 : len(event)-1]
		b.put(out)
		out.ID = strings.TrimSuffix(out.ID, findingSuffix) + findingSuffix
	}
}

// verdict is a record's, in memory of its own: a Decoder's words are those of the line.
func verdict(r *record.Record) audit.Verdict {
	if r.Event.Syscall == nil {
		return ""
	}
	for _, known := range []audit.Verdict{audit.VerdictAllowed, audit.VerdictDenied, audit.VerdictKilled} {
		if r.Event.Syscall.Verdict == known {
			return known
		}
	}
	return audit.Verdict(strings.Clone(string(r.Event.Syscall.Verdict)))
}

// findingSuffix is behind the id of the second event that a record becomes.
const findingSuffix = "-finding"

func (b *batch) put(r sink.Record) {
	b.records = append(b.records, r)
	b.size += int64(len(r.Line))
}

// addGap adds the statement of a gap, and counts it.
func (b *batch) addGap(stream string, id *audit.Identity, at time.Time, g gap) {
	s, arena := gapRecord(b.arena, b.form, stream, id, at, g)
	b.arena = arena
	b.put(s)
	b.lose(g.reason, g.count())
}

func (b *batch) lose(reason Reason, n uint64) {
	if b.losses == nil {
		b.losses = map[Reason]uint64{}
	}
	b.losses[reason] += n
}

// addSigned adds a statement that has something signed in it.
func (b *batch) addSigned(kind audit.Kind, stream string, id *audit.Identity, at time.Time, object []byte) {
	var s sink.Record
	s, b.arena = statement(b.arena, kind, stream, id, at, signed(object))
	b.put(s)
}
