// SPDX-License-Identifier: Apache-2.0

package query

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
)

const (
	pollInterval = 200 * time.Millisecond
	scanEvery    = 5 // polls between two looks for new streams
)

// All as Options.Last means every record.
const All = -1

// Options say how much Read reads.
type Options struct {
	Last      int         // only the last so many records of what there is at first; All for all of them
	LastBytes int         // and no more of them than have so many bytes; 0: no bound. They are kept in memory.
	Follow    bool        // go on with what is written from then on, until the context ends
	Problem   func(error) // told of what had to be passed over: a damaged line, a stream that cannot be read

	// Index, if there is one, saves reading segments that hold nothing of what is chosen, and keeps what is learnt of those that were
	// read. It changes neither what is emitted nor in which order; damage in a segment that need not be read is not told.
	Index *index.Cache
	// Borrow has emit given records that are valid, with all they refer to, until it returns. It takes a fraction of the time. It cannot
	// go with Last.
	Borrow bool
	// Missing is told of each jump in the numbers of a stream's records, of what is read of it: those behind after and before next are
	// not there. nil: nobody is.
	Missing func(s stream.Stream, after, next uint64)
}

// Entry is one record that was chosen.
type Entry struct {
	*record.Record
	Line   []byte // as the stream has it, with its newline; like the record, valid until emit returns with Borrow
	Stream stream.Stream
}

// Read gives emit the records under root that the filter chooses. Records of one stream come in their
// order; streams are merged by time. With Follow, streams that appear later are read as well, and Read
// returns the context's error when that ends; order among streams then holds within one poll (0.2 s). An
// error of emit ends it. A root that does not exist is an error that wraps fs.ErrNotExist.
func Read(ctx context.Context, root string, f *Filter, o Options, emit func(Entry) error) error {
	if o.Borrow && o.Last >= 0 {
		return errors.New("query: the last records cannot be kept of those that are borrowed")
	}
	r := &reading{ctx: ctx, root: root, filter: f, options: o, sources: map[string]*source{}}
	defer r.close()
	if err := r.scan(o.Last); err != nil {
		return err
	}
	first := emit
	var kept []Entry
	var bytesKept int
	var shortened bool
	if o.Last >= 0 {
		first = func(e Entry) error {
			if o.Last == 0 {
				return nil
			}
			kept = append(kept, e)
			bytesKept += len(e.Line)
			for len(kept) > o.Last || o.LastBytes > 0 && bytesKept > o.LastBytes {
				shortened = shortened || len(kept) <= o.Last
				bytesKept -= len(kept[0].Line)
				kept = append(kept[:0], kept[1:]...)
			}
			return nil
		}
	}
	if err := r.drain(ctx, first); err != nil {
		return err
	}
	if shortened {
		r.problem(fmt.Errorf("the last %d records have more than %d bytes; those before the last %d are left out", o.Last, o.LastBytes, len(kept)))
	}
	for _, e := range kept {
		if err := emit(e); err != nil {
			return err
		}
	}
	if !o.Follow {
		return nil
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if n%scanEvery == 0 {
			if err := r.scan(All); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := r.drain(ctx, emit); err != nil {
			return err
		}
	}
}

// reading is the state of one Read.
type reading struct {
	ctx     context.Context
	root    string
	filter  *Filter
	options Options
	sources map[string]*source // by path
}

func (r *reading) close() {
	for _, s := range r.sources {
		s.reader.Close()
	}
}

func (r *reading) problem(err error) {
	if r.options.Problem != nil {
		r.options.Problem(err)
	}
}

// scan opens the streams that are new and lets go of those that are gone.
func (r *reading) scan(last int) error {
	streams, err := stream.List(r.root)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(streams))
	for _, s := range streams {
		there[s.Path] = true
		if r.sources[s.Path] != nil || !r.filter.MatchStream(s) {
			continue
		}
		from, err := r.startOf(s, last)
		if err == nil && from < 0 {
			continue
		}
		var reader *segment.Reader
		if err == nil {
			reader, err = segment.OpenReader(s.Path, from)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			r.problem(err)
			continue
		}
		r.sources[s.Path] = newSource(r, s, reader)
	}
	for path, s := range r.sources {
		if !there[path] {
			s.reader.Close()
			delete(r.sources, path)
		}
	}
	return nil
}

// drain emits what the sources have now.
func (r *reading) drain(ctx context.Context, emit func(Entry) error) error {
	var heads byTime
	for _, s := range r.sources {
		if s.next() {
			heads = append(heads, s)
		}
	}
	heap.Init(&heads)
	for n := 0; len(heads) > 0; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := emit(heads[0].head); err != nil {
			return err
		}
		if heads[0].next() {
			heap.Fix(&heads, 0)
		} else {
			heap.Pop(&heads)
		}
	}
	return ctx.Err()
}

// byTime is a heap of sources by the time of their heads; equal times go by path, so that the order is
// the same each time.
type byTime []*source

func (h byTime) Len() int { return len(h) }
func (h byTime) Less(i, j int) bool {
	if c := h[i].head.Event.Time.Compare(h[j].head.Event.Time); c != 0 {
		return c < 0
	}
	return h[i].stream.Path < h[j].stream.Path
}
func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byTime) Push(x any)   { *h = append(*h, x.(*source)) }
func (h *byTime) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
