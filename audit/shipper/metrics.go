// SPDX-License-Identifier: Apache-2.0

package shipper

import (
	"time"

	"metsuke.dev/metsuke/audit/sink"
	"metsuke.dev/metsuke/internal/exposition"
)

// Metrics are those of one shipper. Its methods are safe for concurrent use; scrapes are answered from memory.
type Metrics struct {
	*exposition.Registry

	records, statements, bytes, retries, losses, damages, unsaved *exposition.Counter
	seconds                                                       *exposition.Histogram
	confirmedAt, lag, backlog, behind, streams                    *exposition.Gauge
}

// NewMetrics returns metrics with no sinks.
func NewMetrics(version string) *Metrics {
	r := exposition.New(version)
	return &Metrics{
		Registry:    r,
		records:     r.Counter("metsuke_ship_records_total", "Records of streams that a sink has confirmed; in the form of OCSF, events. After a restart some are counted that were confirmed before.", "sink"),
		statements:  r.Counter("metsuke_ship_statements_total", "Statements that a sink has confirmed, by kind (docs/shipping.md).", "sink", "kind"),
		bytes:       r.Counter("metsuke_ship_bytes_total", "Bytes of the lines of these, before they are compressed.", "sink"),
		retries:     r.Counter("metsuke_ship_retries_total", "Attempts after which a batch, or what was left of it, had to be sent again.", "sink"),
		losses:      r.Counter("metsuke_ship_lost_records_total", "Records that a sink does not get, by reason (docs/shipping.md). It was told of each.", "sink", "reason"),
		damages:     r.Counter("metsuke_ship_stream_damages_total", "Places in streams that are no record, as a sink's reading came to them.", "sink"),
		unsaved:     r.Counter("metsuke_ship_checkpoint_failures_total", "Checkpoints that could not be written. Nothing is lost by that, but after a restart more is sent again, and retention waits.", "sink"),
		seconds:     r.Histogram("metsuke_ship_send_seconds", "How long attempts took, failed ones too.", []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60}, "sink"),
		confirmedAt: r.Gauge("metsuke_ship_confirmed_timestamp_seconds", "When a sink last confirmed something.", "sink"),
		lag:         r.Gauge("metsuke_ship_lag_seconds", "How old the oldest record is that a sink has not confirmed; 0 if there is none.", "sink"),
		backlog:     r.Gauge("metsuke_ship_backlog_bytes", "Bytes of records that a sink has not confirmed.", "sink"),
		behind:      r.Gauge("metsuke_ship_streams_behind", "Streams that have such bytes.", "sink"),
		streams:     r.Gauge("metsuke_ship_streams", "Streams that there are."),
	}
}

// foresee makes the series of a sink.
func (m *Metrics) foresee(name string) {
	for _, c := range []*exposition.Counter{m.records, m.bytes, m.retries, m.damages, m.unsaved} {
		c.Foresee(name)
	}
	for _, r := range Reasons() {
		m.losses.Foresee(name, r.Name)
	}
}

// attempt counts one attempt to send.
func (m *Metrics) attempt(name string, took time.Duration) { m.seconds.Observe(took.Seconds(), name) }

// confirmed counts what a sink has confirmed.
func (m *Metrics) confirmed(name string, records []sink.Record) {
	var n, bytes uint64
	for _, r := range records {
		bytes += uint64(len(r.Line))
		switch r.Kind {
		case sink.KindGap, sink.KindHead, sink.KindLedger:
			m.statements.Add(1, name, string(r.Kind))
		default:
			n++
		}
	}
	m.records.Add(n, name)
	m.bytes.Add(bytes, name)
	m.confirmedAt.Set(float64(time.Now().UnixMilli())/1000, name)
}

func (m *Metrics) lost(name string, reason Reason, n uint64) { m.losses.Add(n, name, string(reason)) }

// found counts what is missing, and what is damaged, in a batch that is confirmed.
func (m *Metrics) found(name string, b *batch) {
	for reason, n := range b.losses {
		m.lost(name, reason, n)
	}
	m.damages.Add(b.damages, name)
}

// measure shows how far the sinks are.
func (m *Metrics) measure(streams int, all map[string]Backlog, now time.Time) {
	m.streams.Set(float64(streams))
	for name, b := range all {
		lag := 0.0
		if !b.Oldest.IsZero() {
			lag = max(0, now.Sub(b.Oldest).Seconds())
		}
		m.lag.Set(lag, name)
		m.backlog.Set(float64(b.Bytes), name)
		m.behind.Set(float64(b.Streams), name)
	}
}
