// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"
)

// sustained measures how many audited calls a second containers make for as long as the run is told, while all of their records are
// shipped, and proves that none is lost: by metsuke audit verify, and by what is in the sink's file.
func (b *bench) sustained() error {
	for _, c := range []crowd{{"one container", 1, 1}, {"10 containers of one pod", 1, 10}, {"100 containers of 10 pods", 10, 10}} {
		s, err := b.sustain(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		b.addSustained("shipped, "+c.what+": ", s)
		tick()
	}
	return nil
}

// shippedLoad is a load whose records were shipped.
type shippedLoad struct {
	*load
	lost   uint64        // records
	atEnd  float64       // records a second that the sink had when the calls ended
	lag    time.Duration // by how much it was behind then
	memory float64       // of the shipper, in megabytes
}

// sustain has a crowd make calls beside a shipper, until the sink has all.
func (b *bench) sustain(crowd crowd) (_ *shippedLoad, err error) {
	release, err := b.streamsOnDisk()
	if err != nil {
		return nil, err
	}
	// Pods are removed before: containers have the mount of the streams too.
	defer func() { err = errors.Join(err, b.RemoveAllPods(b.ctx), release()) }()
	ship, err := startShipper(b.AuditDir(b.opens), fileSink)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ship.remove()) }()

	s, end := &shippedLoad{load: newLoad(b.duration)}, mark{}
	if err := b.runLoad(s.load, crowd, func() { end = markOf(shippedTo(ship.dir)) }); err != nil {
		return nil, err
	}
	if err := b.RemoveAllPods(b.ctx); err != nil { // streams end
		return nil, err
	}
	streams, err := b.verify(b.opens)
	if err != nil {
		return nil, err
	}
	if err := ship.wait(records(streams)); err != nil {
		return nil, err
	}
	if s.memory, err = ship.memory(); err != nil {
		return nil, err
	}
	if _, err := ship.stop(); err != nil {
		return nil, err
	}
	return s, s.prove(streams, shippedTo(ship.dir), end)
}

// prove holds the sink's file against the streams and the calls.
func (s *shippedLoad) prove(streams []verified, file string, end mark) error {
	a, err := readArrivals(file, end)
	if err != nil {
		return err
	}
	s.atEnd, s.lag = float64(a.before)/s.seconds(), a.lag
	s.lost, err = a.lost(s.load, streams)
	return err
}

func (b *bench) addSustained(what string, s *shippedLoad) {
	n := fmt.Sprint(len(s.windows))
	b.table.add(row{
		what: what + fmt.Sprintf("openat + close a second, in the worst %.0f s", s.width.Seconds()), n: n, with50: number(s.lowest()/1000, "k/s"),
		ratio: fmt.Sprintf("%d lost", s.lost), aim: "≥ 20 k/s, none lost", result: verdict(s.lowest() >= 20_000 && s.lost == 0),
	})
	b.table.add(row{what: what + "the openat", n: n, with50: number(s.took.p50(), "µs"), with99: number(s.took.p99(), "µs")})
	b.table.add(row{
		what: what + "records a second at the sink", n: "1", with50: number(s.atEnd/1000, "k/s"),
		ratio: fmt.Sprintf("%.1f s behind", s.lag.Seconds()), aim: "≥ 20 k/s", result: verdict(s.atEnd >= 20_000),
	})
	b.table.add(row{what: what + "memory of the shipper", n: "1", with50: number(s.memory, "MB"), aim: "≤ 60 MB", result: verdict(s.memory <= 60)})
}
