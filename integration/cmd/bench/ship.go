// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	shipStreams = 8
	shipBytes   = 64 << 20 // of each, that are there before the shipper is
	shipRate    = 20_000   // records a second, that come while it runs
	shipFor     = 20 * time.Second
)

// ship measures how fast a shipper sends what was there before it, by the kind of its sink, and what it takes at the rate that is promised.
func (b *bench) ship() error {
	return errors.Join(b.drains(), b.paced())
}

// drains has shippers send all that is there.
func (b *bench) drains() (err error) {
	log, err := b.newBacklog(shipStreams, shipBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(log.root)) }()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	far := &collector{}
	server := &http.Server{Handler: far, ReadHeaderTimeout: time.Minute}
	defer func() { err = errors.Join(err, server.Close()) }()
	go func() { _ = server.Serve(listener) }() // until it is closed
	for _, side := range []struct {
		what    string
		sink    func(dir string) string
		arrived func(*shipper) (uint64, error) // records, once it has ended
	}{
		{"a file", fileSink, func(s *shipper) (uint64, error) {
			a, err := readArrivals(shippedTo(s.dir), mark{})
			if err != nil {
				return 0, err
			}
			n := a.twice
			for _, end := range a.ends {
				n += end.Seq
			}
			return n, nil
		}},
		{"OTLP over HTTP", collectorSink(listener.Addr(), "none"), far.taken},
		{"OTLP over HTTP with gzip", collectorSink(listener.Addr(), "gzip"), far.taken},
	} {
		if err := b.drain(log, side.what, side.sink, side.arrived); err != nil {
			return fmt.Errorf("%s: %w", side.what, err)
		}
		tick()
	}
	return nil
}

// drain has a shipper send all of a backlog.
func (b *bench) drain(log *backlog, what string, sink func(dir string) string, arrived func(*shipper) (uint64, error)) (err error) {
	begin := time.Now()
	s, err := startShipper(log.root, sink, "--once")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	memory, err := s.finish()
	if err != nil {
		return err
	}
	took := time.Since(begin)
	processor, err := s.stop()
	if err != nil {
		return err
	}
	n, err := arrived(s)
	if err != nil {
		return err
	}
	if n < log.sum() {
		return fmt.Errorf("%d records arrived of %d", n, log.sum())
	}
	b.table.add(row{
		what: "a backlog to " + what + ": records a second; processor for each", n: fmt.Sprint(n),
		with50: number(float64(n)/took.Seconds()/1000, "k/s"), ratio: number(float64(processor.Microseconds())/float64(n), "µs"),
		aim: "≥ 20 k/s", result: verdict(float64(n)/took.Seconds() >= 20_000),
	})
	b.table.add(row{
		what: "a backlog to " + what + ": memory of the shipper", n: "1",
		with50: number(memory, "MB"), ratio: number(float64(log.bytes)/1e6/took.Seconds(), "MB/s"), aim: "≤ 60 MB", result: verdict(memory <= 60),
	})
	return nil
}

// paced has a shipper send to a file what comes at the rate.
func (b *bench) paced() (err error) {
	log, err := b.newBacklog(shipStreams, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(log.root)) }()
	s, err := startShipper(log.root, fileSink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	begin := time.Now()
	if err := b.pace(log, shipRate, shipFor); err != nil {
		return err
	}
	if err := s.wait(log.records); err != nil {
		return err
	}
	took := time.Since(begin)
	memory, err := s.memory()
	if err != nil {
		return err
	}
	processor, err := s.stop()
	if err != nil {
		return err
	}
	b.table.add(row{
		what: fmt.Sprintf("%d k records a second to a file: memory of the shipper; processor", shipRate/1000), n: "1", with50: number(memory, "MB"),
		ratio: number(100*processor.Seconds()/took.Seconds(), "%"), aim: "≤ 60 MB", result: verdict(memory <= 60),
	})
	return nil
}
