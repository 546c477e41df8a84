// SPDX-License-Identifier: Apache-2.0

// Package retention keeps the streams of a node small: it compresses segments that are complete, and removes what is beyond limits of age
// and size, the oldest first, and never what a sink that is waited for has not confirmed. One process of a node does that.
//
// It writes nothing that a stream's writer writes. Of a stream that is written it leaves alone the last segment that has a record, and all that
// the manifest does not tell of yet; of one that is closed it takes the lock for the moments in which files are replaced or go away. What it is
// about to remove it says first, signed: of segments in the stream's journal of removals, of whole streams in the node's ledger. Wherever
// it is killed, what there is can be read and proven, and the next round goes on. docs/adr/0017-retention.md says why it is done like this.
package retention

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"metsuke.dev/metsuke/audit/signature"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/flock"
)

// Policy says how much is kept.
type Policy struct {
	MaxAge   time.Duration // of a record; 0: any
	PodSize  int64         // bytes on the disk of a pod's streams; 0: no bound
	NodeSize int64         // and of all streams; 0: no bound
	Compress bool
}

// Round is one round of work on the streams below a root. Its fields are not changed while it runs.
type Round struct {
	Root   string
	Policy Policy
	Key    *signature.Key // signs what is removed; nil: nothing that is signed is removed
	Keys   signature.Ring // that what is signed of streams may be signed with
	// Confirmed returns the number of the last record of a stream that all sinks have which are waited for. nil: none is.
	Confirmed func(dir, id string) uint64
	DryRun    bool         // change nothing, and tell what would be done
	Did       func(Action) // told of each thing that was done; nil: nobody is
	Problem   func(error)  // told of what could not be; nil: nobody is

	now  func() time.Time
	step func(string) // tests look at the files after each step
}

// Kind says what was done.
type Kind string

// The kinds of actions.
const (
	Compressed Kind = "compressed" // a segment
	Removed    Kind = "removed"    // segments, or with Whole the stream
)

// Action is one thing that was done to a stream.
type Action struct {
	Kind   Kind   `json:"action"`
	Stream string `json:"stream"` // <namespace>_<pod>_<uid>/<container>
	From   int    `json:"from"`   // numbers of the first and the last segment
	To     int    `json:"to"`
	Whole  bool   `json:"whole"`  // the stream is gone
	Before int64  `json:"before"` // bytes on the disk
	After  int64  `json:"after"`  // in a dry run of a compression: as before
	Reason string `json:"reason,omitempty"`
}

// Report says what a round has found and done.
type Report struct {
	Streams    int   `json:"streams"`    // that there are now
	Bytes      int64 `json:"bytes"`      // that they take on the disk now
	Largest    int64 `json:"largest"`    // that those of the largest pod take
	Compressed int   `json:"compressed"` // segments
	Saved      int64 `json:"saved"`      // bytes, by that
	Segments   int   `json:"segments"`   // that were removed, those of whole streams not counted
	Whole      int   `json:"whole"`      // streams that were removed
	Removed    int64 `json:"removed"`    // bytes, by both
	Backlog    int64 `json:"backlog"`    // bytes that are beyond the limits, and that sinks have not confirmed
	Problems   int   `json:"problems"`
	DryRun     bool  `json:"dryRun"`
}

// ErrBusy is wrapped by the error of a round while another process is at one.
var ErrBusy = errors.New("another process is at work on these streams")

const (
	// graveyard is where a stream goes on its way out, in the root, so that it is gone at once.
	graveyard = ".removed"
	// settled is how long a stream has been closed before its last segment is compressed: its container may be restarted.
	settled = time.Hour
	// abandoned is how long a pod's directory has been empty before it is removed: its first stream may be about to be made.
	abandoned = 10 * time.Minute
)

// Run does the round. The error is for a root that cannot be read, for another process that is at work there (ErrBusy), or the context's; what
// is wrong with one stream is told to Problem, and the round goes on.
func (r *Round) Run(ctx context.Context) (Report, error) {
	w := &work{Round: r, report: Report{DryRun: r.DryRun}}
	if r.now == nil {
		r.now = time.Now
	}
	root, err := os.Open(r.Root)
	if err != nil {
		return w.report, fmt.Errorf("retention: %w", err)
	}
	defer root.Close()
	if err := flock.Exclusive(root, 0, time.Millisecond); err != nil {
		if errors.Is(err, flock.ErrHeld) {
			err = fmt.Errorf("%s: %w", r.Root, ErrBusy)
		}
		return w.report, fmt.Errorf("retention: %w", err)
	}
	defer func() { _ = flock.Release(root) }()
	return w.report, w.run(ctx)
}

// work is a round as it goes on.
type work struct {
	*Round
	report Report
}

func (w *work) run(ctx context.Context) error {
	if !w.DryRun {
		w.problem("", errors.Join(os.RemoveAll(filepath.Join(w.Root, graveyard)), w.clear()))
	}
	streams, err := stream.List(w.Root)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	var all []*subject
	for _, s := range streams {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found, err := w.visit(ctx, s)
		if errors.Is(err, fs.ErrNotExist) { // somebody has removed it
			continue
		}
		w.problem(s.Path, err)
		if found != nil {
			all = append(all, found)
		}
	}
	if err := w.reduce(ctx, all); err != nil {
		return err
	}
	pods := map[string]int64{}
	for _, s := range all {
		if s.gone {
			continue
		}
		w.report.Streams++
		w.report.Bytes += s.bytes
		pods[s.Pod] += s.bytes
		w.report.Largest = max(w.report.Largest, pods[s.Pod])
	}
	if !w.DryRun {
		w.problem("", w.removeEmptyPods())
		w.problem("", w.summarize())
	}
	return nil
}

// visit looks at a stream, clears what an earlier round has left, and compresses what can be.
func (w *work) visit(ctx context.Context, s stream.Stream) (*subject, error) {
	found, err := look(s)
	if err != nil {
		return nil, err
	}
	if !w.DryRun {
		if err := found.clear(); err != nil {
			return found, err
		}
	}
	if !w.Policy.Compress {
		return found, nil
	}
	return found, w.compressAll(ctx, found)
}

func (w *work) problem(where string, err error) {
	if err == nil {
		return
	}
	w.report.Problems++
	if where != "" {
		err = fmt.Errorf("%s: %w", where, err)
	}
	if w.Problem != nil {
		w.Problem(err)
	}
}

func (w *work) did(a Action) {
	switch {
	case a.Kind == Compressed:
		w.report.Compressed++
		w.report.Saved += a.Before - a.After
	case a.Whole:
		w.report.Whole++
		w.report.Removed += a.Before
	default:
		w.report.Segments += a.To - a.From + 1
		w.report.Removed += a.Before
	}
	if w.Did != nil {
		w.Did(a)
	}
}

func (w *work) at(step string) {
	if w.step != nil {
		w.step(step)
	}
}

// clear removes summaries that were not completed.
func (w *work) clear() (err error) {
	stale, _ := filepath.Glob(filepath.Join(w.Root, summaryName+"-*")) // the pattern is valid
	for _, path := range stale {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// removeEmptyPods removes directories of pods that have no stream any more.
func (w *work) removeEmptyPods() error {
	entries, err := os.ReadDir(w.Root)
	for _, e := range entries {
		info, infoErr := e.Info()
		if !e.IsDir() || infoErr != nil || w.now().Sub(info.ModTime()) < abandoned {
			continue
		}
		_ = os.Remove(filepath.Join(w.Root, e.Name())) // which fails unless it is empty
	}
	return err
}
