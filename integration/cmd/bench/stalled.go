// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// stalled measures the audited call beside a shipper whose sink takes what it is sent, and beside one whose sink takes nothing: it accepts
// connections, and reads nothing of them.
func (b *bench) stalled() error {
	mute, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = mute.Close() }()
	sides := []*beside{
		{what: "none"},
		{what: "a shipper", sink: fileSink, reached: func(s *shipper) error {
			_, err := os.Stat(shippedTo(s.dir))
			return err
		}},
		{what: "a stalled sink", sink: collectorSink(mute.Addr(), "none"), reached: func(*shipper) error {
			conn, err := mute.Accept()
			if err == nil {
				err = conn.Close()
			}
			return err
		}},
	}
	rounds := max(3, b.rounds/6)
	for range rounds {
		if err := mute.SetDeadline(time.Now().Add(time.Minute + b.duration)); err != nil {
			return err
		}
		for _, side := range sides {
			if err := b.beside(side); err != nil {
				return fmt.Errorf("%s: %w", side.what, err)
			}
		}
		tick()
	}
	none := sides[0]
	for i, side := range sides[1:] {
		ratio := side.p99.p50() / none.p99.p50()
		r := row{
			what: fmt.Sprintf("audited openat beside %s, p99 by p99", side.what), n: fmt.Sprint(rounds), ratio: fmt.Sprintf("%.2f", ratio),
			without50: number(none.p50.p50(), "µs"), without99: number(none.p99.p50(), "µs"),
			with50: number(side.p50.p50(), "µs"), with99: number(side.p99.p50(), "µs"),
		}
		if i == 1 { // the other one works, on the same processors
			r.aim, r.result = "≤ 1.10 ×", verdict(ratio <= 1.10)
		}
		b.table.add(r)
	}
	return nil
}

// beside is what a container has beside it while it makes audited calls.
type beside struct {
	what    string
	sink    func(dir string) string // of a shipper; nil: there is none
	reached func(*shipper) error    // the sink, once at least
	p50     samples                 // of what the calls took, one for each turn; microseconds
	p99     samples
}

// beside has a container make calls, with a shipper that begins when it does.
func (b *bench) beside(side *beside) (err error) {
	release, err := b.streamsOnDisk()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.RemoveAllPods(b.ctx), release()) }()
	reached := func() error { return nil }
	if side.sink != nil {
		ship, err := startShipper(b.AuditDir(b.opens), side.sink)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ship.remove()) }()
		reached = func() error { return side.reached(ship) }
	}
	l := newLoad(b.duration / 20)
	if err := b.runLoad(l, crowd{"", 1, 1}, func() {}); err != nil {
		return err
	}
	side.p50, side.p99 = append(side.p50, l.took.p50()), append(side.p99, l.took.p99())
	return reached()
}
