// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/ocsf"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink"
)

// Reason says why records are not shipped. What a sink refuses has its sink.Reason.
type Reason string

// The reasons, described by Reasons.
const (
	Removed Reason = "removed"
	Damaged Reason = "damaged"
)

// Reasons are all reasons for which records are not shipped.
func Reasons() []audit.Term {
	return []audit.Term{
		{Name: string(Removed), Doc: "They were not there any more when their turn came: retention, or somebody, had removed them. Also what a stream had lost before the sink was first shipped to."},
		{Name: string(Damaged), Doc: "Where they should be, the stream has bytes that are no record, or cannot be read."},
		{Name: string(sink.TooLarge), Doc: "They are larger than the sink takes."},
		{Name: string(sink.Refused), Doc: "The sink says that they are not valid, and took the statement that tells of it."},
	}
}

// gap is what a statement of kind gap says.
type gap struct {
	after, before uint64 // numbers of the records around it; before is 0 if nothing is known behind it
	bytes         int64  // that are no record
	reason        Reason
	chain         string // of a refused record
	detail        string // of a refused record: what the sink says
}

// count is how many records are missing, as far as that is known.
func (g *gap) count() uint64 {
	if g.before <= g.after+1 {
		return 0
	}
	return g.before - g.after - 1
}

// statement appends a statement about a stream, or the node, to arena. Nothing in it depends on when it is made, so one that is made again is
// the same.
func statement(arena []byte, kind audit.Kind, stream string, id *audit.Identity, at time.Time, rest func([]byte) []byte) (sink.Record, []byte) {
	start := len(arena)
	arena = at.UTC().AppendFormat(append(arena, `{"v":1,"time":"`...), timeForm)
	arena = audit.AppendString(append(arena, `","node":`...), id.Node)
	if stream != "" {
		arena = audit.AppendString(append(arena, `,"namespace":`...), id.Namespace)
		arena = audit.AppendString(append(arena, `,"pod":`...), id.Pod)
		arena = audit.AppendString(append(arena, `,"podUID":`...), id.PodUID)
		arena = audit.AppendString(append(arena, `,"container":`...), id.Container)
		arena = audit.AppendString(append(arena, `,"stream":`...), stream)
	}
	arena = audit.AppendString(append(arena, `,"kind":`...), string(kind))
	arena = append(rest(arena), '}')
	line := arena[start:len(arena):len(arena)]
	sum := sha256.Sum256(line)
	return sink.Record{
		ID: hex.EncodeToString(sum[:]), Stream: stream, Identity: id, Time: at, Kind: kind, Line: line,
	}, arena
}

const timeForm = "2006-01-02T15:04:05.000000000Z"

// signed appends what was signed, as it is, as the last field: it can be cut out and verified.
func signed(object []byte) func([]byte) []byte {
	return func(line []byte) []byte { return append(append(line, `,"signed":`...), object...) }
}

// appendTo appends the fields of a gap.
func (g *gap) appendTo(line []byte) []byte {
	line = audit.AppendString(append(line, `,"reason":`...), string(g.reason))
	line = strconv.AppendUint(append(line, `,"after":`...), g.after, 10)
	line = strconv.AppendUint(append(line, `,"before":`...), g.before, 10)
	line = strconv.AppendUint(append(line, `,"count":`...), g.count(), 10)
	line = strconv.AppendInt(append(line, `,"bytes":`...), g.bytes, 10)
	if g.chain != "" {
		line = audit.AppendString(append(line, `,"chain":`...), g.chain)
	}
	if g.detail != "" {
		line = audit.AppendString(append(line, `,"detail":`...), g.detail)
	}
	return line
}

// gapRecord makes the statement of a gap, in the form that the sink wants.
func gapRecord(arena []byte, form config.Form, stream string, id *audit.Identity, at time.Time, g gap) (sink.Record, []byte) {
	s, arena := statement(arena, sink.KindGap, stream, id, at, g.appendTo)
	if form != config.FormOCSF {
		return s, arena
	}
	start := len(arena)
	arena = ocsf.Append(arena, &record.Record{Seq: g.after, Identity: *id, Chain: s.ID, Event: audit.Event{
		Time: at, Kind: audit.KindLoss, Loss: &audit.Loss{Reason: "not-shipped-" + string(g.reason), Count: g.count(), Bytes: uint64(g.bytes), Detail: g.detail},
	}})
	s.Line = arena[start : len(arena)-1 : len(arena)-1]
	return s, arena
}
