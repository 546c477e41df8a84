// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/integration/stand"
)

// verified is what metsuke audit verify says of a stream that is proven.
type verified struct {
	Stream  string
	Records uint64
	Chain   string // of the last record
}

// verify proves the streams under the root of a handler, as a user would. What is not proven is an error.
func (b *bench) verify(handler string) (streams []verified, err error) {
	cmd := exec.CommandContext(b.ctx, stand.Metsuke("metsuke"), "audit", "verify", "-o", "json", "--config", b.ConfigPath(handler), b.AuditDir(handler)+"/")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("metsuke audit verify: %w: %s", err, out)
	}
	for line := range bytes.Lines(out) {
		var s verified
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, err
		}
		if s.Stream != "" { // else it is the ledger
			streams = append(streams, s)
		}
	}
	return streams, nil
}

// records are the numbers of records of streams.
func records(streams []verified) map[string]uint64 {
	numbers := map[string]uint64{}
	for _, s := range streams {
		numbers[s.Stream] = s.Records
	}
	return numbers
}

// mark is how far a sink's file was at a moment.
type mark struct {
	size int64
	at   time.Time
}

// markOf looks at a file now.
func markOf(path string) (m mark) {
	m.at = time.Now()
	if info, err := os.Stat(path); err == nil { // else there is nothing yet
		m.size = info.Size()
	}
	return m
}

// arrivals is what is in a sink's file.
type arrivals struct {
	mark mark

	ends   map[string]stream.Link // of each stream, by its ContainerID: each record follows from the one before it
	calls  map[string]uint64      // of the probe, likewise
	before uint64                 // records before the mark
	lag    time.Duration          // the age that the oldest of those had at the mark that had happened and are behind it
	twice  uint64                 // records that came again
}

// readArrivals reads a sink's file. A record that does not follow, and a gap, is an error.
func readArrivals(path string, m mark) (*arrivals, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	a := &arrivals{mark: m, ends: map[string]stream.Link{}, calls: map[string]uint64{}}
	in := bufio.NewReaderSize(file, 1<<20)
	var decoder record.Decoder
	for offset := int64(0); ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: offset %d: %w", path, offset, err)
		}
		offset += int64(len(line))
		r, err := decoder.Decode(line)
		switch {
		case err == nil:
			err = a.take(r, line, offset > m.size)
		case bytes.Contains(line, []byte(`"kind":"`+sink.KindGap+`"`)):
		default: // a head, or a line of the ledger
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: before offset %d: %w: %.200s", path, offset, err, line)
		}
	}
}

func (a *arrivals) take(r *record.Record, line []byte, late bool) error {
	id := r.Identity.ContainerID
	end := a.ends[id]
	if r.Seq <= end.Seq {
		a.twice++
		return nil
	}
	next, err := end.Follow(line)
	if err != nil {
		return err
	}
	a.ends[id] = next
	if call := r.Event.Syscall; call != nil && call.Syscall == "openat" && len(call.Args) > 1 && call.Args[1].Value == opened {
		a.calls[id]++
	}
	if late {
		a.lag = max(a.lag, a.mark.at.Sub(r.Event.Time))
	} else {
		a.before++
	}
	return nil
}

// lost is how many records of the calls are not in the sink's file, or are not as in the streams.
func (a *arrivals) lost(l *load, streams []verified) (lost uint64, err error) {
	arrived := map[stream.Link]bool{}
	for id, made := range l.calls {
		if a.calls[id] > made {
			return 0, fmt.Errorf("container %s has records of %d calls, and made %d", id, a.calls[id], made)
		}
		lost += made - a.calls[id]
		arrived[a.ends[id]] = true
	}
	for _, s := range streams {
		if !arrived[stream.Link{Seq: s.Records, Chain: s.Chain}] {
			return 0, fmt.Errorf("stream %s ends with record %d, and what was shipped does not", s.Stream, s.Records)
		}
	}
	return lost, nil
}
