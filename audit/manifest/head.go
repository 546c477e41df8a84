// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/signature"
)

// The head is a file of two slots of HeadSlot bytes. Heads are numbered 1, 2, 3, … and written in place, one slot after the other: the
// write(2) of one block is whole or absent when the process dies, it needs no room on a full disk, and whatever a power failure does to
// one slot, the other is whole. A slot is a signed line whose object is followed by blanks up to the newline that ends the slot.
const (
	HeadName = "head"
	HeadSlot = 1024

	headContext = "metsuke head 1"
)

// Head says how far a stream is signed.
type Head struct {
	Version int       `json:"v"`
	Number  uint64    `json:"head"`
	Time    time.Time `json:"time"`
	ID      string    `json:"id"` // of the stream, as in the manifest
	At      Point     `json:"at"`
	Lines   uint64    `json:"lines"`    // of the manifest
	Last    string    `json:"manifest"` // SHA-256 of the last one
	Ledger  uint64    `json:"ledger"`   // line of the node's ledger that was written last for this stream; 0: none yet
}

// ErrSlot is wrapped by errors for a slot that does not hold a head.
var ErrSlot = errors.New("not a head")

// Slot signs the head, and returns a slot and its offset in the file.
func (h *Head) Slot(key *signature.Key) (slot []byte, offset int64, err error) {
	h.Version = journal.Version
	object, err := json.Marshal(h)
	if err != nil {
		return nil, 0, fmt.Errorf("head: %w", err)
	}
	line := key.Sign(headContext, object)
	if len(line) > HeadSlot {
		return nil, 0, fmt.Errorf("head: %d bytes, more than %d", len(line), HeadSlot)
	}
	slot = bytes.Repeat([]byte{' '}, HeadSlot)
	copy(slot, line[:len(line)-1])
	slot[HeadSlot-1] = '\n'
	return slot, offsetOf(h.Number), nil
}

func offsetOf(number uint64) int64 { return int64((number-1)%2) * HeadSlot }

// ReadHeads returns what the two slots hold: nil for one that was never written. The first error is that of a slot, each of which is
// either whole or a fault: nobody but a power failure and an attacker leaves anything else. A head that was signed with a key which is
// not in the ring is returned with its error, an *signature.UnknownKeyError.
func ReadHeads(r io.Reader, keys signature.Ring) (heads [2]*Head, errs [2]error) {
	data, err := io.ReadAll(io.LimitReader(r, 2*HeadSlot+1))
	switch {
	case err != nil:
		errs[0] = err
		return heads, errs
	case len(data) != HeadSlot && len(data) != 2*HeadSlot:
		errs[0] = fmt.Errorf("%w: %d bytes, not %d or %d", ErrSlot, len(data), HeadSlot, 2*HeadSlot)
		return heads, errs
	}
	for i := range len(data) / HeadSlot {
		slot := data[i*HeadSlot:][:HeadSlot]
		h, err := parseSlot(slot, keys)
		if h != nil && offsetOf(h.Number) != int64(i)*HeadSlot {
			h, err = nil, fmt.Errorf("%w: number %d is in the other one's slot", ErrSlot, h.Number)
		}
		if h != nil && len(data) == HeadSlot && h.Number != 1 {
			h, err = nil, fmt.Errorf("%w: number %d is alone", ErrSlot, h.Number)
		}
		heads[i], errs[i] = h, err
	}
	if a, b := heads[0], heads[1]; a != nil && b != nil && a.Number+1 != b.Number && b.Number+1 != a.Number {
		errs[0] = fmt.Errorf("%w: numbers %d and %d are not neighbours", ErrSlot, a.Number, b.Number)
	}
	return heads, errs
}

func parseSlot(slot []byte, keys signature.Ring) (*Head, error) {
	line := bytes.TrimRight(slot[:HeadSlot-1], " ")
	if slot[HeadSlot-1] != '\n' {
		return nil, fmt.Errorf("%w: its last byte is no newline", ErrSlot)
	}
	_, unknown := keys.Check(headContext, append(bytes.Clone(line), '\n'))
	var key *signature.UnknownKeyError
	if unknown != nil && !errors.As(unknown, &key) {
		return nil, unknown
	}
	var h Head
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSlot, err)
	}
	switch {
	case h.Version != journal.Version:
		return nil, journal.ErrVersion
	case h.Number == 0:
		return nil, fmt.Errorf("%w: it has no number", ErrSlot)
	}
	return &h, unknown
}

// Newest returns the newer one of two heads; nil if there is none.
func Newest(heads [2]*Head) *Head {
	a, b := heads[0], heads[1]
	if a == nil || b != nil && b.Number > a.Number {
		return b
	}
	return a
}
