// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/internal/fsys"
)

// summaryName is the file, in the root of the streams, by which rounds tell whoever looks at the node how they went.
const summaryName = ".retention.json"

// maxSummary bounds that file, in bytes.
const maxSummary = 64 << 10

// Summary is what rounds have come to.
type Summary struct {
	Time  time.Time `json:"time"` // when the last one was over
	Last  Report    `json:"last"`
	Total Total     `json:"total"`
}

// Total is what all rounds have done together. It only grows, unless somebody removes the file.
type Total struct {
	Compressed uint64 `json:"compressed"` // segments
	Saved      uint64 `json:"saved"`      // bytes, by that
	Segments   uint64 `json:"segments"`   // that were removed, those of whole streams not counted
	Whole      uint64 `json:"whole"`      // streams that were removed
	Removed    uint64 `json:"removed"`    // bytes, by both
	Problems   uint64 `json:"problems"`
}

// LoadSummary reads how the rounds went on the streams below root. The error wraps fs.ErrNotExist if there was none.
func LoadSummary(root string) (s Summary, err error) {
	file, err := fsys.OpenRegular(filepath.Join(root, summaryName))
	if err != nil {
		return s, fmt.Errorf("summary of retention: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSummary))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return Summary{}, fmt.Errorf("summary of retention %s: %w", file.Name(), err)
	}
	return s, nil
}

// summarize adds the round to the summary. One that cannot be read begins anew.
func (w *work) summarize() error {
	s, err := LoadSummary(w.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.problem("", err)
	}
	r, t := w.report, &s.Total
	for total, n := range map[*uint64]int64{
		&t.Compressed: int64(r.Compressed), &t.Saved: r.Saved, &t.Segments: int64(r.Segments), &t.Whole: int64(r.Whole),
		&t.Removed: r.Removed, &t.Problems: int64(r.Problems),
	} {
		*total += uint64(max(n, 0))
	}
	s.Time, s.Last = w.now().UTC(), r
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(w.Root, summaryName+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(append(data, '\n'))
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), filepath.Join(w.Root, summaryName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
