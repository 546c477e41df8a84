// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"metsuke.dev/metsuke/audit"
)

// checkChain reads a stream without package segment, which needs this one.
func checkChain(dir string) (records uint64, err error) {
	segments, err := Segments(dir)
	var link Link
	for _, s := range segments {
		data, readErr := os.ReadFile(s.Path)
		err = errors.Join(err, readErr)
		for line := range bytes.Lines(data) {
			next, followErr := link.Follow(line)
			if followErr != nil {
				return link.Seq, errors.Join(err, followErr)
			}
			link = next
		}
	}
	return link.Seq, err
}

// A record that could not be written is not told of.
func TestAppendedOnlyWhatIsWritten(t *testing.T) {
	n := 0
	w := open(t, t.TempDir(), Options{Appended: func(*audit.Event, Position) { n++ }})
	w.write = func(*os.File, []byte) (int, error) { return 0, errors.New("no") }
	if err := w.Append(call(1)); err == nil || n != 0 {
		t.Errorf("told of %d records; error %v", n, err)
	}
	w.write = (*os.File).Write
	if appendAll(t, w, 1); n != 1 {
		t.Errorf("told of %d records, want 1", n)
	}
}
