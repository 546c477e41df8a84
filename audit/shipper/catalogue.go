// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/journal"
	"metsuke.dev/metsuke/audit/ledger"
	"metsuke.dev/metsuke/audit/manifest"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/internal/fsys"
)

const (
	// lookEvery is how often streams are looked at that grew within the last liveFor; all others are looked at each slowLooks-th time. A look
	// is two calls of lstat(2) for a stream, so thousands of dead ones cost a few milliseconds a second.
	lookEvery = 250 * time.Millisecond
	slowLooks = 4
	liveFor   = time.Minute
	// settle is how old a directory's mtime must be for its listing to be all of it: the kernel's clock for mtimes has steps of some milliseconds.
	settle = 100 * time.Millisecond
)

// extent is what the catalogue knows of a stream.
type extent struct {
	path string // below the root: <pod>/<container>
	id   string // in its manifest, "" if it has none
	end  stream.Position
}

// catalogue finds the streams under a root, and how far each is written, for all sinks together. It opens nothing of a stream that does not change.
type catalogue struct {
	root string
	now  func() time.Time

	rootSeen time.Time // mtime of the root when it was listed; zero: it is to be listed
	pods     map[string]*podDir
	looks    int

	mu      sync.Mutex
	extents []extent      // guarded by mu, as all below; ordered by path
	missed  error         // about a directory that could not be listed at the last slow look
	ledger  int64         // size of the node's ledger, 0 if there is none
	changed chan struct{} // closed, and made anew, when something was found
}

type podDir struct {
	seen    time.Time
	streams map[string]*streamDir
}

type streamDir struct {
	extent
	dir     string
	segment string // path of the last segment, "" if there is none, or it is compressed
	seen    time.Time
	grew    time.Time
}

func newCatalogue(root string) *catalogue {
	return &catalogue{root: root, now: time.Now, pods: map[string]*podDir{}, changed: make(chan struct{})}
}

// list appends what there is to dst, and returns a channel that is closed when it changes.
func (c *catalogue) list(dst []extent) (all []extent, ledger int64, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(dst, c.extents...), c.ledger, c.changed
}

// look looks once. A root that is not there has no streams. The error is about the root, and nothing has changed then.
func (c *catalogue) look() error {
	now := c.now()
	slow := c.looks%slowLooks == 0
	c.looks++
	changed, missed, err := c.lookAtRoot(now, slow)
	if err != nil {
		return err
	}
	for _, pod := range c.pods {
		for _, s := range pod.streams {
			if slow || now.Sub(s.grew) < liveFor {
				changed = s.look(now) || changed
			}
		}
	}
	size := int64(0)
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(c.root, ledger.Name), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		size = st.Size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if slow {
		c.missed = missed
	}
	if !changed && size == c.ledger {
		return nil
	}
	c.ledger = size
	c.extents = c.extents[:0]
	for _, pod := range c.pods {
		for _, s := range pod.streams {
			c.extents = append(c.extents, s.extent)
		}
	}
	slices.SortFunc(c.extents, func(a, b extent) int { return strings.Compare(a.path, b.path) })
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// unlisted is an error about a directory that there is and that could not be listed; nil: there is none.
func (c *catalogue) unlisted() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missed
}

// lookAtRoot finds pods and their containers that came or went. One that cannot be listed now is missed, and listed at another look.
func (c *catalogue) lookAtRoot(now time.Time, slow bool) (changed bool, missed, err error) {
	names, listed, err := listIfNew(c.root+"/", &c.rootSeen, now) // the root itself may be a link
	if err != nil {
		return false, nil, err
	}
	if listed {
		changed = keep(c.pods, names, func(string) *podDir { return &podDir{streams: map[string]*streamDir{}} })
	}
	for name, pod := range c.pods {
		if !slow && !pod.seen.IsZero() {
			continue
		}
		containers, listed, err := listIfNew(filepath.Join(c.root, name), &pod.seen, now)
		if err != nil {
			missed = err
		}
		if err != nil || !listed {
			continue
		}
		changed = keep(pod.streams, containers, func(container string) *streamDir {
			return &streamDir{extent: extent{path: name + "/" + container}, dir: filepath.Join(c.root, name, container), grew: now}
		}) || changed
	}
	return changed, missed, nil
}

// keep makes have that of the names, which are in order.
func keep[T any](have map[string]T, names []string, add func(string) T) (changed bool) {
	for name := range have {
		if _, there := slices.BinarySearch(names, name); !there {
			delete(have, name)
			changed = true
		}
	}
	for _, name := range names {
		if _, ok := have[name]; !ok {
			have[name] = add(name)
			changed = true
		}
	}
	return changed
}

// listIfNew lists the directories in one, if its mtime is not the one that was seen. Links are passed over.
func listIfNew(dir string, seen *time.Time, now time.Time) (names []string, listed bool, err error) {
	at, ok := mtime(dir)
	if ok && at.Equal(*seen) {
		return nil, false, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	*seen = settled(at, now)
	return names, true, nil
}

// settled is what to remember of a directory's mtime: nothing if more may come at the same moment.
func settled(at, now time.Time) time.Time {
	if now.Sub(at) < settle {
		return time.Time{}
	}
	return at
}

func mtime(path string) (at time.Time, ok bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return time.Time{}, false
	}
	return time.Unix(st.Mtim.Unix()), true
}

// look finds how far a stream is written, and reports whether that has changed.
func (s *streamDir) look(now time.Time) (changed bool) {
	before := s.extent
	if at, ok := mtime(s.dir); !ok || !at.Equal(s.seen) {
		s.seen = settled(at, now)
		s.list()
	}
	var st unix.Stat_t
	if s.segment != "" && unix.Lstat(s.segment, &st) == nil {
		s.end.Offset = st.Size
	}
	if s.extent == before {
		return false
	}
	s.grew = now
	return true
}

func (s *streamDir) list() {
	segments, err := stream.Segments(s.dir)
	if err != nil || len(segments) == 0 {
		s.segment, s.end = "", stream.Position{}
		return
	}
	last := segments[len(segments)-1]
	switch {
	case !isPlain(last):
		s.segment, s.end = "", stream.Position{Segment: last.Number, Offset: contentOf(last.Path)}
	case s.segment != last.Path:
		s.segment, s.end = last.Path, stream.Position{Segment: last.Number}
	}
	s.id = streamID(s.dir)
}

// contentOf is how many bytes of records a segment has; more than it can have if that is not known: then reading it says what is wrong.
func contentOf(path string) int64 {
	file, err := segment.Open(path)
	if err != nil {
		return math.MaxInt64
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return math.MaxInt64
	}
	return size
}

// streamID returns the stream's id as the last line of its manifest has it; "" if there is none that can be read.
func streamID(dir string) string {
	file, err := fsys.OpenRegular(filepath.Join(dir, manifest.Name))
	if err != nil {
		return ""
	}
	defer file.Close()
	line, err := journal.LastLine(file)
	if err != nil {
		return ""
	}
	state, _ := manifest.Resume(line)
	return state.ID
}
