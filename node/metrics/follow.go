// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/tally"
	"metsuke.dev/metsuke/node/pods"
)

const (
	// maxRead is how many bytes of streams are read in one look; the next one goes on.
	maxRead = 16 << 20
	// grace is for how many looks the streams of a pod are read that is gone: whoever cleans up may yet write. After that they rest: one
	// look in so many reads them, for the pod may have come back, and gone again unseen.
	grace, rest = 6, 32
)

// follower counts each record of all streams once. It is for one goroutine.
type follower struct {
	root   string // Metrics.root
	add    func(handler, profile string, key counter, n uint64)
	show   func(profile string, key counter) counter // as what it is added: there are few of these, whatever a guest makes up
	tell   func(handler string, r *record.Record)    // Metrics.TellStarts; nil: nobody is told
	tracks map[string]*track                         // by directory of the stream
	known  map[string]map[string]int                 // by directory of streams: the pods that are there, whose streams have tracks, and for how many looks they have been gone
}

// track is how far one stream is counted: all records up to number seq, but for the gaps.
type track struct {
	handler string
	pod     string             // name of the pod's directory
	id      string             // of the instance that wrote record seq; "": not known
	counted map[counter]uint64 // of that instance, as far as it was seen
	settled bool               // what an instance that was there before us had counted by then is known
	seq     uint64             // 0: what lies before at
	at      stream.Position    // of record seq, or where the next one begins
	gaps    []gap
	timed   string            // the newest instance whose start was told, or is in untold
	untold  []stream.Position // of the records of starts that are to be told
	gone    int               // looks since the pod was there
}

// gap is the records with numbers above after and up to until, which an instance wrote that nobody saw, or that was seen before its end.
type gap struct {
	at           stream.Position
	after, until uint64
	timed        string // an instance in it whose start is told already; "": none
}

// update takes in what the shims said, but for what there was before the first look, which began is the moment of; then it reads what no
// shim tells. It returns how many places could not be read, by handler, and how many streams are not read to their end.
func (f *follower) update(ctx context.Context, all []pods.Pod, roots []string, began time.Time) (damages map[string]uint64, behind int, err error) {
	alive := map[string]bool{}
	for i := range all {
		alive[stream.PodName(all[i].Namespace, all[i].Name, all[i].UID)] = true
	}
	for _, root := range roots {
		if err := f.find(root, alive); err != nil {
			return nil, 0, err
		}
	}
	told := map[string]bool{}
	for i := range all {
		handler := podHandler(&all[i])
		for j := range all[i].Containers {
			c := &all[i].Containers[j]
			if c.Stream == nil {
				continue
			}
			t := f.track(c.Stream.Dir)
			t.handler, t.gone = handler, 0
			if c.Stream.Counts != nil {
				told[c.Stream.Dir] = true
				f.take(t, c, c.Created.Before(began))
			}
		}
	}
	reader := reader{follower: f, left: maxRead, damages: map[string]uint64{}}
	for dir, t := range f.tracks {
		_, there := f.known[filepath.Dir(filepath.Dir(dir))][t.pod]
		switch {
		case !alive[t.pod] && !there:
			delete(f.tracks, dir)
			continue
		case !alive[t.pod] && rests(t.gone):
			t.gone++
			continue
		}
		if !reader.read(ctx, dir, t, told[dir]) {
			behind++
			continue
		}
		if t.gone++; alive[t.pod] {
			t.gone = 0
		}
	}
	return reader.damages, behind, ctx.Err()
}

// rests tells whether one look leaves out a pod that has been gone for so many.
func rests(gone int) bool { return gone > grace && gone%rest != 0 }

func (f *follower) track(dir string) *track {
	t := f.tracks[dir]
	if t == nil {
		if f.tracks == nil {
			f.tracks = map[string]*track{}
		}
		t = &track{handler: Unknown, pod: filepath.Base(filepath.Dir(dir)), at: stream.Position{Segment: 1}}
		f.tracks[dir] = t
	}
	return t
}

// find makes tracks for streams that came since the last look. Those that were there at the first are done with, up to their end.
func (f *follower) find(root string, alive map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(f.root, root))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, seen := f.known[root]
	now := map[string]int{}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() {
			continue
		}
		gone, known := before[name]
		switch {
		case alive[name]:
			gone = 0
		case known:
			gone++
		case !seen:
			gone = grace + 1 + len(now)%rest // not all in one look
		}
		now[name] = gone
		if seen && rests(gone) {
			continue
		}
		containers, err := os.ReadDir(filepath.Join(f.root, root, name))
		if err != nil { // retention was faster
			continue
		}
		for _, c := range containers {
			dir := filepath.Join(root, name, c.Name())
			if !c.IsDir() || f.tracks[dir] != nil {
				continue
			}
			if t := f.track(dir); !seen {
				t.at = end(filepath.Join(f.root, dir))
				t.gone = gone
			}
		}
	}
	if f.known == nil {
		f.known = map[string]map[string]int{}
	}
	f.known[root] = now
	return nil
}

// end is where a stream ends.
func end(dir string) stream.Position {
	at, err := segment.End(dir)
	if err != nil { // it is being removed, or read from its last segment's beginning
		return stream.Position{Segment: max(at.Segment, 1)}
	}
	return at
}

// take takes in what a shim has counted of an instance. One that was there before we were is taken as it is.
func (f *follower) take(t *track, c *pods.Container, old bool) {
	counts := c.Stream.Counts
	now := f.shown(c.Profile, counts)
	now[counter{name: "stalls"}] = c.Stream.Stalls
	before := c.Stream.Events - min(c.Stream.Events, counts.Records) // number of the last record that is not the instance's
	switch {
	case old && !t.settled: // what it has written since we are here is in the stream
		t.gaps = append(t.gaps, gap{t.at, t.seq, c.Stream.Events, c.ID})
		t.id, t.counted, t.settled = c.ID, now, true
	case t.id != c.ID:
		if before > t.seq {
			t.gaps = append(t.gaps, gap{t.at, t.seq, before, ""})
		}
		t.id, t.counted = c.ID, map[counter]uint64{}
	}
	if at := counts.Places.Timing; at != nil && t.timed != c.ID && f.tell != nil {
		t.timed, t.untold = c.ID, append(t.untold, *at)
	}
	for key, n := range now {
		if was := t.counted[key]; n > was {
			f.add(t.handler, c.Profile, key, n-was)
			t.counted[key] = n
		}
	}
	if c.Stream.Events >= t.seq {
		t.seq = c.Stream.Events
		if last := counts.Places.Last; last != nil {
			t.at = *last
		}
	}
}

// shown is what was counted, as it is shown.
func (f *follower) shown(profile string, c *tally.Counts) map[counter]uint64 {
	all := map[counter]uint64{}
	for key, n := range flat(c) {
		all[f.show(profile, key)] += n
	}
	return all
}

// reader reads what no shim tells, within the bounds of one look.
type reader struct {
	*follower
	left    int
	damages map[string]uint64 // by handler
}

// read reads the starts that are to be told, the gaps of a stream, and what lies behind its track if no shim tells of it. It reports
// whether nothing is left.
func (r *reader) read(ctx context.Context, dir string, t *track, told bool) bool {
	for len(t.untold) > 0 {
		if r.left <= 0 {
			return false
		}
		r.start(dir, t, t.untold[0])
		t.untold = slices.Delete(t.untold, 0, 1)
	}
	for len(t.gaps) > 0 {
		g := &t.gaps[0]
		ended := r.scan(ctx, dir, t, &g.at, &g.after, g.until, func(rec *record.Record, counts map[counter]uint64) {
			r.put(t.handler, rec.Identity.Profile, counts)
			r.tellUnless(g.timed, t, rec)
		})
		if !ended {
			return false
		}
		t.gaps = slices.Delete(t.gaps, 0, 1)
	}
	if told {
		return true
	}
	return r.scan(ctx, dir, t, &t.at, &t.seq, 0, func(rec *record.Record, counts map[counter]uint64) {
		if t.id != rec.Identity.ContainerID {
			t.id, t.counted = rec.Identity.ContainerID, map[counter]uint64{}
		}
		for key, n := range counts {
			t.counted[key] += n
		}
		r.put(t.handler, rec.Identity.Profile, counts)
		if r.tellUnless(t.timed, t, rec) {
			t.timed = t.id
		}
	})
}

// start tells of a start whose place the shim has told.
func (r *reader) start(dir string, t *track, at stream.Position) {
	line, err := segment.ReadAt(filepath.Join(r.root, dir), at)
	if errors.Is(err, fs.ErrNotExist) { // retention was faster
		return
	}
	if rec := r.parse(t, line, err); rec != nil {
		r.tellUnless("", t, rec)
	}
}

// parse decodes a line that was read, where err says why it could not be. nil: it is damage, and counted.
func (r *reader) parse(t *track, line []byte, err error) (rec *record.Record) {
	r.left -= len(line)
	if err == nil {
		rec, err = record.Parse(line)
	}
	if err != nil {
		r.damages[t.handler]++
		return nil
	}
	return rec
}

// tellUnless tells of a start, if the record is of one, unless it is the start of an instance that is told already. It reports whether
// it did.
func (r *reader) tellUnless(timed string, t *track, rec *record.Record) bool {
	if r.tell == nil || rec.Event.Timing == nil || rec.Identity.ContainerID == timed {
		return false
	}
	r.tell(t.handler, rec)
	return true
}

func (r *reader) put(handler, profile string, counts map[counter]uint64) {
	for key, n := range counts {
		r.add(handler, profile, key, n)
	}
}

// scan counts the records with numbers above after and up to until (0: all), and moves at and after along. It reports whether it came to
// the end.
func (r *reader) scan(ctx context.Context, dir string, t *track, at *stream.Position, after *uint64, until uint64, one func(*record.Record, map[counter]uint64)) bool {
	in, err := segment.OpenReaderAt(filepath.Join(r.root, dir), *at)
	if err != nil { // retention was faster
		return true
	}
	defer in.Close()
	for r.left > 0 && ctx.Err() == nil {
		line, err := in.Next()
		var damage *segment.DamageError
		switch {
		case errors.Is(err, io.EOF):
			*at = in.Behind()
			return true
		case err != nil && !errors.As(err, &damage):
			r.damages[t.handler]++
			return true
		}
		rec := r.parse(t, line, err)
		if rec == nil {
			*at = in.Behind()
			continue
		}
		if until != 0 && rec.Seq > until {
			return true
		}
		if rec.Seq > *after {
			var counted tally.Tally
			counted.Add(&rec.Event, in.Position())
			counts := counted.Counts()
			one(rec, r.shown(rec.Identity.Profile, &counts))
			*after = rec.Seq
		}
		*at = in.Behind()
	}
	return false
}
