// SPDX-License-Identifier: Apache-2.0

package rollout

import "slices"

// Result is what was measured with one number of nodes.
type Result struct {
	Nodes     int      `json:"nodes"`
	Documents int      `json:"documents"`
	Phases    []*Phase `json:"phases"`
}

// Phase is one thing that happened.
type Phase struct {
	Name       string               `json:"name"`
	Nodes      int                  `json:"nodes"`
	Seconds    float64              `json:"seconds"`              // how long it was measured
	Heartbeats int                  `json:"heartbeats,omitempty"` // how many were sent
	Latencies  map[string]Quantiles `json:"latencies,omitempty"`  // since the phase began, by what happened
	Load       counters             `json:"load"`
	Memory     Memory               `json:"memory"`
}

// Memory is what is resident of the programs at the end of a phase, in bytes.
type Memory struct {
	APIServer  uint64 `json:"apiserver"`
	Etcd       uint64 `json:"etcd"`
	Controller uint64 `json:"controller"`
}

// Quantiles are of N times, in seconds.
type Quantiles struct {
	N   int     `json:"n"`
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (p *Phase) latency(of string, seconds ...float64) {
	if p.Latencies == nil {
		p.Latencies = map[string]Quantiles{}
	}
	p.Latencies[of] = quantiles(seconds)
}

// quantiles of at least one time; the nearest rank, so each is a time that was measured.
func quantiles(seconds []float64) Quantiles {
	slices.Sort(seconds)
	n := len(seconds)
	rank := func(percent int) float64 { return seconds[(percent*n+99)/100-1] }
	return Quantiles{N: n, Min: seconds[0], P50: rank(50), P99: rank(99), Max: seconds[n-1]}
}
