// SPDX-License-Identifier: Apache-2.0

// Package verify proves of audit streams that nothing of them is missing, changed, reordered or cut off, and says where it is otherwise.
// It reads files, of the node or copied from it, and public keys; it never changes anything and takes no locks. Streams may be written
// meanwhile. What it needs is constant in the length of a stream, and grows by a few hundred bytes for each stream of the ledger.
package verify

import "metsuke.dev/metsuke/audit"

// Severity says what a finding means for the proof.
type Severity string

// The severities, from mild to grave.
const (
	Note     Severity = "note"     // the proof holds; this is how things are
	Unjudged Severity = "unjudged" // there is no proof, and no fault either
	Fault    Severity = "fault"    // something was done to the stream, or happened to it
)

// Code names what was found, for programs.
type Code string

// The codes, described by Codes.
const (
	RecordMissing     Code = "record-missing"
	RecordOrder       Code = "record-order"
	RecordChanged     Code = "record-changed"
	RecordForeign     Code = "record-foreign"
	RecordUnsigned    Code = "record-unsigned"
	NoRecord          Code = "no-record"
	Rewritten         Code = "rewritten"
	Truncated         Code = "truncated"
	SignedMissing     Code = "signed-missing"
	SegmentMissing    Code = "segment-missing"
	SegmentChanged    Code = "segment-changed"
	SegmentExtra      Code = "segment-extra"
	CompressedDamaged Code = "compressed-damaged"
	RemovalsChanged   Code = "removals-changed"
	CountersChanged   Code = "counters-changed"
	ManifestMissing   Code = "manifest-missing"
	ManifestChanged   Code = "manifest-changed"
	ManifestTruncated Code = "manifest-truncated"
	HeadMissing       Code = "head-missing"
	HeadChanged       Code = "head-changed"
	HeadOld           Code = "head-old"
	HeadForeign       Code = "head-foreign"
	BrokenBefore      Code = "broken-before"
	BadSignature      Code = "bad-signature"
	UnknownKey        Code = "unknown-key"
	StreamMoved       Code = "stream-moved"
	StreamGone        Code = "stream-gone"
	StreamRolledBack  Code = "stream-rolled-back"
	StreamUntold      Code = "stream-untold"
	LedgerMissing     Code = "ledger-missing"
	LedgerChanged     Code = "ledger-changed"
	LedgerTruncated   Code = "ledger-truncated"
	Unreadable        Code = "unreadable"

	NotSigned    Code = "not-signed"
	NoKey        Code = "no-key"
	NewerVersion Code = "newer-version"

	NotSignedYet Code = "not-signed-yet"
	SignedLate   Code = "signed-late"
	TornTail     Code = "torn-tail"
	WriterKilled Code = "writer-killed"
	Removed      Code = "removed"
)

// Codes are all codes with their meaning, as sentences in Markdown: faults first, then what cannot be judged, then notes.
func Codes() []audit.Term { return append(append(faults(), unjudged()...), notes()...) }

func faults() []audit.Term {
	return []audit.Term{
		{Name: string(RecordMissing), Doc: "Records are missing between two that are there."},
		{Name: string(RecordOrder), Doc: "A record stands where it does not belong: it was repeated, or moved."},
		{Name: string(RecordChanged), Doc: "A record does not follow from the one before it: one of the two was changed."},
		{Name: string(RecordForeign), Doc: "A segment begins with a record of another stream."},
		{Name: string(RecordUnsigned), Doc: "There are records behind the place where the last writer closed the stream."},
		{Name: string(NoRecord), Doc: "Bytes of a segment are no record."},
		{Name: string(Rewritten), Doc: "The chain holds, but is not the one that was signed: records were changed and chained anew, or stand at other places."},
		{Name: string(Truncated), Doc: "The stream ends before the last record that was signed for."},
		{Name: string(SignedMissing), Doc: "When a writer opened the stream, records were gone that had been signed for: somebody took them, or a disk that had not kept what it acknowledged. The stream has a `loss` record there."},
		{Name: string(SegmentMissing), Doc: "A segment is not there, and nothing says that it was removed on purpose."},
		{Name: string(SegmentChanged), Doc: "A segment is not what the manifest says of it, although each of its records is."},
		{Name: string(SegmentExtra), Doc: "There is a segment behind the place where the last writer closed the stream."},
		{Name: string(CompressedDamaged), Doc: "A compressed segment is not as it was written, or holds more or less than was signed."},
		{Name: string(RemovalsChanged), Doc: "A line of the file `removals` was changed, moved, or taken out; lines behind it prove nothing."},
		{Name: string(CountersChanged), Doc: "The file `folded` of a closed stream is not as its writer left it."},
		{Name: string(ManifestMissing), Doc: "There is a head, and no manifest."},
		{Name: string(ManifestChanged), Doc: "A line of the manifest was changed, moved, or taken out; lines behind it prove nothing."},
		{Name: string(ManifestTruncated), Doc: "The manifest has fewer lines than the head, or the ledger, names."},
		{Name: string(HeadMissing), Doc: "There is a manifest, and no head."},
		{Name: string(HeadChanged), Doc: "A slot of the head was changed, or a power failure came while a disk wrote it."},
		{Name: string(HeadOld), Doc: "The head is older than the manifest: it is an earlier copy, or could not be written."},
		{Name: string(HeadForeign), Doc: "The head belongs to another stream, or to another manifest."},
		{Name: string(BrokenBefore), Doc: "When a writer opened the stream, head or manifest of the writer before were missing or damaged."},
		{Name: string(BadSignature), Doc: "A signature does not fit what it stands under."},
		{Name: string(UnknownKey), Doc: "A signature was made with a key that was not given."},
		{Name: string(StreamMoved), Doc: "The directory is not that of the stream that it holds."},
		{Name: string(StreamGone), Doc: "The ledger tells of a stream that is not there."},
		{Name: string(StreamRolledBack), Doc: "The ledger tells of lines that the stream's manifest does not have: it is an earlier copy."},
		{Name: string(StreamUntold), Doc: "The stream says that the ledger tells of it, and the ledger does not."},
		{Name: string(LedgerMissing), Doc: "Streams name a ledger, and there is none."},
		{Name: string(LedgerChanged), Doc: "A line of the ledger was changed, moved, or taken out; lines behind it prove nothing."},
		{Name: string(LedgerTruncated), Doc: "The ledger has fewer lines than a stream's head names."},
		{Name: string(Unreadable), Doc: "A file could not be read."},
	}
}

func unjudged() []audit.Term {
	return []audit.Term{
		{Name: string(NotSigned), Doc: "The stream has no manifest: it was written without a key, by an earlier version. Its chain holds; that its end is there cannot be told."},
		{Name: string(NoKey), Doc: "No public key was given, and the node's own was not found."},
		{Name: string(NewerVersion), Doc: "A newer version of Metsuke has written this."},
	}
}

func notes() []audit.Term {
	return []audit.Term{
		{Name: string(NotSignedYet), Doc: "The stream is open, and its last records have no signature over them yet: its writer signs every `flushInterval`. Of a writer that was killed they are the last ones it wrote."},
		{Name: string(SignedLate), Doc: "The first records were there before the manifest. What was done to them until then cannot be told, since then it can."},
		{Name: string(TornTail), Doc: "The stream is open, and ends in a piece of a record or of a line: it is being written, or its writer was killed."},
		{Name: string(WriterKilled), Doc: "A writer was killed between two of its steps."},
		{Name: string(Removed), Doc: "Segments, or the whole stream, were removed on purpose, as a signed line says."},
	}
}

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	File     string   `json:"file"`
	Offset   int64    `json:"offset"`         // where in the file; 0 as well if it is about all of it
	Line     uint64   `json:"line,omitempty"` // of a manifest or a ledger
	Seq      uint64   `json:"seq,omitempty"`  // of a record
	Message  string   `json:"message"`        // for people; it holds names from files, which are hostile
}

// maxFindings bounds what is told of one stream.
const maxFindings = 100

// findings is a list that stays short.
type findings struct {
	list []Finding
	left int
}

// add adds a finding. When there is no room, one that is graver than all others takes the place of the last one: the verdict is by the gravest.
func (f *findings) add(x Finding) {
	if len(f.list) < maxFindings {
		f.list = append(f.list, x)
		return
	}
	f.left++
	if grades[x.Severity] > grades[worst(f.list)] {
		f.list[maxFindings-1] = x
	}
}

// grades order severities.
var grades = map[Severity]int{"": 0, Note: 1, Unjudged: 2, Fault: 3}

// worst is the gravest severity of a list; empty if there is nothing in it.
func worst(list []Finding) Severity {
	var w Severity
	for _, x := range list {
		if grades[x.Severity] > grades[w] {
			w = x.Severity
		}
	}
	return w
}
