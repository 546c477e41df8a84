// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"os"
	"time"

	"metsuke.dev/metsuke/audit"
)

// tryAgain is how long a segment that should be completed for its age goes on if none can be begun.
const tryAgain = time.Minute

// isFull tells whether a record of so many bytes is for another segment than the present one, or for more of it than it may have yet.
func (w *Writer) isFull(bytes int64) bool {
	return w.size > 0 && (w.size+bytes > w.limit || w.isOld())
}

// isOld tells whether the segment is to be completed for its age. Only a record asks: an idle container's segment stays as it is.
func (w *Writer) isOld() bool { return w.age > 0 && !w.began.IsZero() && time.Since(w.began) > w.age }

// goOn makes room for a record of so many bytes: in the segment, if that may get more, or in the next one. The last words of an instance
// find it in any case: what has become of a container is told, also when its end is that there was no room for more.
func (w *Writer) goOn(kind audit.Kind, bytes int64) error {
	path := w.segment.Name()
	fits := w.size+bytes <= w.limit
	if !fits && w.limit < w.most && !w.isOld() {
		limit, err := w.budget.grant(path, w.most)
		if err == nil {
			w.limit = limit
		}
		if err == nil && w.size+bytes <= limit {
			return nil
		}
	}
	err := w.rotate()
	over := new(overBudget)
	switch {
	case err == nil:
	case fits:
		w.began = time.Now().Add(tryAgain - w.age)
		return nil
	case errors.As(err, &over) && (kind == audit.KindExit || kind == audit.KindEnd):
		w.limit = w.size + bytes
		w.budget.exceed(path, w.limit)
		return nil
	}
	return err
}

// grow notes that the segment has so many bytes more.
func (w *Writer) grow(bytes int64) {
	if w.size == 0 {
		w.began = time.Now()
	}
	before := w.size
	w.size += bytes
	if near := w.limit - w.limit/4; before < near && w.size >= near {
		w.budget.ask()
	}
}

// beganAt is when the first record of a segment was written; zero if it has none.
func beganAt(segment *os.File) time.Time {
	_, at := readStamp(segment, 0)
	return at
}
