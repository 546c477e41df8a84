// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"

	"metsuke.dev/metsuke/audit/journal"
)

// RemovalsName is the name, in the stream's directory, of the journal in which retention says which segments it is about to remove, and
// RemovalsContext what its lines are signed for. It is a file of its own because a manifest has one writer, the stream's.
const (
	RemovalsName    = "removals"
	RemovalsContext = "metsuke removals 1"
)

// Removal is a line of that journal. Segments are removed from the first one on, so what is gone is what no record is before.
type Removal struct {
	journal.Place
	ID     string `json:"id"`   // of the stream, as in its manifest
	From   int    `json:"from"` // numbers of the first and the last segment
	To     int    `json:"to"`
	Last   uint64 `json:"last"`   // number of the last record in them
	Reason string `json:"reason"` // for people
}

// Check tells whether a line is one of the stream with this id.
func (r *Removal) Check(id string) error {
	switch {
	case r.ID != id:
		return fmt.Errorf("it is a line of another stream: %s", r.ID)
	case r.From < 1 || r.To < r.From:
		return fmt.Errorf("it names segments %d to %d", r.From, r.To)
	}
	return nil
}
