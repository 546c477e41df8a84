// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"errors"
	"fmt"

	"metsuke.dev/metsuke/audit/index"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
)

// minIndexed is the size from which on segments are indexed; tests have small ones.
var minIndexed int64 = index.MinBytes

// source is one stream that is being read.
type source struct {
	stream  stream.Stream
	reader  *segment.Reader
	reading *reading
	head    Entry

	decoder record.Decoder
	descent *descent // nil: a process was not asked for
	seq     uint64   // of the last record; 0: not known
	segment int      // that the last line came from; 0: none
	last    int      // the segment that is read last; 0: there is no such
	indexer *indexer // of the segment; nil: nothing is learnt of it
}

// indexer makes the index of a segment that is read.
type indexer struct {
	path    string
	key     index.Key
	summary index.Summary
}

func newSource(r *reading, s stream.Stream, reader *segment.Reader) *source {
	src := &source{stream: s, reader: reader, reading: r}
	if p := r.filter.Process; p.PID != 0 {
		src.descent = &descent{root: p}
	}
	return src
}

// next reads on to the next record that the filter chooses; false at the stream's present end, or when the context has ended.
func (s *source) next() bool {
	for n := 0; ; n++ {
		if n%1024 == 1023 && s.reading.ctx.Err() != nil {
			return false
		}
		line, err := s.reader.Next()
		var damage *segment.DamageError
		switch {
		case err == nil:
		case isEnd(err):
			return false
		case errors.As(err, &damage):
			s.damaged(err)
			continue
		default:
			s.reading.problem(err)
			return false
		}
		if n := s.reader.Segment().Number; n != s.segment {
			if s.last != 0 && n > s.last {
				s.finish()
				return false
			}
			if !s.enter(n) {
				continue
			}
		}
		r, err := s.decoder.Decode(line)
		if err != nil {
			s.damaged(fmt.Errorf("%s: %w", s.reader.Segment().Path, err))
			continue
		}
		if !s.take(r) {
			continue
		}
		if !s.reading.options.Borrow {
			line = bytes.Clone(line)
			r, err = new(record.Decoder).Decode(line) // its own, so what it refers to stays
			if err != nil {
				s.damaged(fmt.Errorf("%s: %w", s.reader.Segment().Path, err))
				continue
			}
		}
		s.head = Entry{Record: r, Line: line, Stream: s.stream}
		return true
	}
}

// damaged says that something had to be passed over. Nothing is told of the segment by an index then, so that it is said each time.
func (s *source) damaged(err error) {
	s.indexer = nil
	s.reading.problem(err)
}

// take takes note of a record, and tells whether the filter chooses it.
func (s *source) take(r *record.Record) bool {
	if s.seq != 0 && r.Seq != s.seq+1 && s.reading.options.Missing != nil {
		s.reading.options.Missing(s.stream, s.seq, r.Seq)
	}
	s.seq = r.Seq
	if s.indexer != nil {
		s.indexer.summary.Add(r)
	}
	if s.descent != nil && !s.descent.has(r) {
		return false
	}
	return s.reading.filter.Match(r)
}

// enter is called with the first line of each segment. It returns false if that line is passed over, because the reader was sent to a
// later segment.
func (s *source) enter(number int) bool {
	s.finish()
	s.segment = number
	cache := s.reading.options.Index
	if cache == nil {
		return true
	}
	segments, err := stream.Segments(s.stream.Path)
	if err != nil {
		return true // the reader will say it
	}
	for len(segments) > 0 && segments[0].Number < number {
		segments = segments[1:]
	}
	at := segments
	for ; len(at) > 1; at = at[1:] { // the last one may grow
		key, size, err := index.KeyOf(at[0].Path)
		if err != nil || size < minIndexed {
			break
		}
		summary := cache.Get(key)
		if summary == nil {
			if at[0].Number == number && s.reader.Position().Offset == 0 {
				s.indexer = &indexer{path: at[0].Path, key: key}
			}
			break
		}
		if s.descent != nil || s.reading.filter.mayMatch(summary) { // who descends from whom is told by all records
			break
		}
	}
	if len(at) == len(segments) || len(at) == 0 || s.goTo(at[0].Number) != nil {
		return true
	}
	return false
}

// goTo has the reader go on at the beginning of a segment.
func (s *source) goTo(number int) error {
	reader, err := segment.OpenReader(s.stream.Path, number)
	if err != nil {
		return err
	}
	s.reader.Close()
	s.reader, s.seq = reader, 0
	return nil
}

// finish keeps what was learnt of a segment that was read to its end, if it is still the same.
func (s *source) finish() {
	done := s.indexer
	s.indexer = nil
	if done == nil {
		return
	}
	if key, _, err := index.KeyOf(done.path); err == nil && key == done.key {
		s.reading.options.Index.Put(key, &done.summary)
	}
}
