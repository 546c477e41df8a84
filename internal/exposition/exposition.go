// SPDX-License-Identifier: Apache-2.0

// Package exposition holds numbers in memory and shows them to Prometheus.
//
// Each family has a name, labels and a help text, from which docs/metrics.md is made, and a bound on its series: what is measured
// comes from workloads in the end. A scrape asks nobody.
package exposition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Bounds of what is shown.
const (
	MaxSeries = 5000 // of a family; what comes after them is counted under Other
	MaxLabel  = 128  // bytes of a label's value; longer ones are cut
)

// Other is the value of all labels of the series that stands for those beyond MaxSeries.
const Other = "other"

// Registry has the families of one program.
type Registry struct {
	*prometheus.Registry
	families []*Family
}

// New returns a registry with the numbers that every program of Metsuke has: its version, and what its process and Go's runtime use.
func New(version string) *Registry {
	r := &Registry{Registry: prometheus.NewRegistry()}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.Gauge("metsuke_build_info", "Version of Metsuke; always 1.", "version").Replace(Sample{1, []string{version}})
	return r
}

// Counter adds a family of counters. Its name ends in _total.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	return &Counter{r.add(name, "counter", help, labels)}
}

// Gauge adds a family of gauges.
func (r *Registry) Gauge(name, help string, labels ...string) *Gauge {
	return &Gauge{r.add(name, "gauge", help, labels)}
}

// Histogram adds a family of histograms whose buckets end at the bounds.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...string) *Histogram {
	f := r.add(name, "histogram", help, labels)
	f.bounds = bounds
	return &Histogram{f}
}

func (r *Registry) add(name, kind, help string, labels []string) *Family {
	f := &Family{Name: name, Kind: kind, Help: help, Labels: labels, desc: prometheus.NewDesc(name, help, labels, nil), series: map[string]*series{}}
	r.MustRegister(f)
	r.families = append(r.families, f)
	return f
}

// Table lists the families as rows of a Markdown table, in the order in which they were added.
func (r *Registry) Table() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
	for _, f := range r.families {
		labels := slices.Clone(f.Labels)
		for i := range labels {
			labels[i] = "`" + labels[i] + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Kind, strings.Join(labels, " "), f.Help)
	}
	return b.String()
}
