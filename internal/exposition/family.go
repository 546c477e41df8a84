// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Family is all series of one name. It implements prometheus.Collector.
type Family struct {
	Name, Kind, Help string
	Labels           []string

	desc   *prometheus.Desc
	bounds []float64 // of a histogram

	mu     sync.Mutex
	series map[string]*series // guarded by mu; by the values of the labels
}

type series struct {
	values  []string
	created time.Time
	value   float64  // of a histogram: the sum
	count   uint64   // of a histogram
	buckets []uint64 // of a histogram, each without those before it
}

// at returns the series of these values, which is made if need be. The caller holds f.mu.
func (f *Family) at(values []string) *series {
	if len(values) != len(f.Labels) {
		panic(f.Name + ": " + strings.Join(values, ", ") + " are not the values of its labels")
	}
	clean := make([]string, len(values))
	for i, v := range values {
		clean[i] = strings.ToValidUTF8(v[:min(len(v), MaxLabel)], "")
	}
	key := strings.Join(clean, "\xff") // which is in no UTF-8
	if s := f.series[key]; s != nil {
		return s
	}
	if len(f.series) >= MaxSeries {
		for i := range clean {
			clean[i] = Other
		}
		key = strings.Join(clean, "\xff")
		if s := f.series[key]; s != nil {
			return s
		}
	}
	s := &series{values: clean, created: time.Now(), buckets: make([]uint64, len(f.bounds))}
	f.series[key] = s
	return s
}

// Describe implements prometheus.Collector.
func (f *Family) Describe(to chan<- *prometheus.Desc) { to <- f.desc }

// Collect implements prometheus.Collector.
func (f *Family) Collect(to chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.series {
		to <- f.metric(s)
	}
}

func (f *Family) metric(s *series) prometheus.Metric {
	switch f.Kind {
	case "counter":
		return prometheus.MustNewConstMetricWithCreatedTimestamp(f.desc, prometheus.CounterValue, s.value, s.created, s.values...)
	case "histogram":
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, bound := range f.bounds {
			sum += s.buckets[i]
			buckets[bound] = sum
		}
		return prometheus.MustNewConstHistogramWithCreatedTimestamp(f.desc, s.count, s.value, buckets, s.created, s.values...)
	}
	return prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, s.value, s.values...)
}

// Counter is a family of counters. Its methods are safe for concurrent use.
type Counter struct{ *Family }

// Add adds n to a series.
func (c *Counter) Add(n uint64, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at(values).value += float64(n)
}

// Foresee makes a series at 0, so that its first increase is seen as one, as long as the half of all that there may be is free.
func (c *Counter) Foresee(values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.series) < MaxSeries/2 {
		c.at(values)
	}
}

// Sample is the value of one series.
type Sample struct {
	Value  float64
	Labels []string
}

// Gauge is a family of gauges. Its methods are safe for concurrent use.
type Gauge struct{ *Family }

// Replace makes these the family's series: those that are there twice are added up, others end.
func (g *Gauge) Replace(samples ...Sample) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.series = map[string]*series{}
	for _, s := range samples {
		g.at(s.Labels).value += s.Value
	}
}

// Set sets one series.
func (g *Gauge) Set(value float64, values ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at(values).value = value
}

// Histogram is a family of histograms. Its methods are safe for concurrent use.
type Histogram struct{ *Family }

// Add adds observations that were counted elsewhere: how many there are, their sum, and how many are in each bucket and in none before.
func (h *Histogram) Add(count uint64, sum float64, buckets []uint64, values ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.at(values)
	s.count += count
	s.value += sum
	for i := range min(len(buckets), len(s.buckets)) {
		s.buckets[i] += buckets[i]
	}
}

// Observe adds one observation.
func (h *Histogram) Observe(v float64, values ...string) {
	buckets := make([]uint64, len(h.bounds))
	if i, _ := slices.BinarySearch(h.bounds, v); i < len(buckets) {
		buckets[i] = 1
	}
	h.Add(1, v, buckets, values...)
}
