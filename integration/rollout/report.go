// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Report is what a series of runs with growing numbers of nodes showed.
type Report struct {
	Kubernetes string    `json:"kubernetes"` // version of the API server
	CPUs       int       `json:"cpus"`
	Settle     float64   `json:"settle"` // seconds
	Spread     float64   `json:"spread"` // seconds
	Target     int       `json:"target"` // the number of nodes that is extrapolated to
	Results    []*Result `json:"results"`
	Costs      []Cost    `json:"costs"`
}

// Cost is what a phase costs the cluster: Fixed, and PerNode for each node more, the line that the runs are nearest to.
type Cost struct {
	Phase    string  `json:"phase"`
	What     string  `json:"what"`
	Unit     string  `json:"unit"`
	Fixed    float64 `json:"fixed"`
	PerNode  float64 `json:"perNode"`
	Largest  float64 `json:"largest"`  // measured in the largest run
	AtTarget float64 `json:"atTarget"` // Fixed + PerNode × Target
	Measured bool    `json:"measured"` // whether the largest run has Target nodes, so that Largest is what counts
}

// costs are those of which a table is made: what grows with the number of nodes. Answers with 429 do not, but with how short the machine is.
var costs = []struct {
	what, unit string
	of         func(*Phase) float64
}{
	{"API server CPU", "s", func(p *Phase) float64 { return p.Load.APIServerCPU }},
	{"etcd CPU", "s", func(p *Phase) float64 { return p.Load.EtcdCPU }},
	{"controller CPU", "s", func(p *Phase) float64 { return p.Load.ControllerCPU }},
	{"agents' CPU", "s", func(p *Phase) float64 { return p.Load.AgentsCPU }},
	{"API server memory", "MB", func(p *Phase) float64 { return float64(p.Memory.APIServer) / 1e6 }},
	{"controller memory", "MB", func(p *Phase) float64 { return float64(p.Memory.Controller) / 1e6 }},
	{"reports (PATCH)", "", func(p *Phase) float64 { return p.Load.Requests["PATCH agentnodes"] }},
	{"label writes", "", func(p *Phase) float64 { return p.Load.Requests["PATCH nodes"] }},
	{"LISTs of documents", "", func(p *Phase) float64 { return p.Load.Requests["LIST accepteddocuments"] }},
	{"watch events with bookmarks", "", func(p *Phase) float64 { return p.Load.WatchEvents }},
	{"watch events with bookmarks", "MB", func(p *Phase) float64 { return p.Load.WatchBytes / 1e6 }},
	{"sent to agents", "MB", func(p *Phase) float64 { return p.Load.Received / 1e6 }},
	{"etcd writes", "", func(p *Phase) float64 { return p.Load.EtcdPuts }},
}

// Fit works out the costs, from all runs.
func (r *Report) Fit() {
	r.Costs = nil
	for _, name := range r.phases() {
		for _, c := range costs {
			var x, y []float64
			for _, phase := range r.all(name) {
				x, y = append(x, float64(phase.Nodes)), append(y, c.of(phase))
			}
			if slices.Max(y) == 0 {
				continue
			}
			l := fit(x, y)
			largest := slices.Max(x)
			r.Costs = append(r.Costs, Cost{
				Phase: name, What: c.what, Unit: c.unit, Fixed: l.a, PerNode: l.b, Largest: y[slices.Index(x, largest)],
				AtTarget: l.at(float64(r.Target)), Measured: int(largest) >= r.Target,
			})
		}
	}
}

// phases are the names of the phases, in their order.
func (r *Report) phases() (names []string) {
	for _, result := range r.Results {
		for _, phase := range result.Phases {
			if !slices.Contains(names, phase.Name) {
				names = append(names, phase.Name)
			}
		}
	}
	return names
}

func (r *Report) all(name string) (phases []*Phase) {
	for _, result := range r.Results {
		for _, phase := range result.Phases {
			if phase.Name == name {
				phases = append(phases, phase)
			}
		}
	}
	return phases
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "API server %s, etcd, the controller and all agents on one machine with %d CPUs; settle %g s, spread %g s\n\n", r.Kubernetes, r.CPUs, r.Settle, r.Spread)
	fmt.Fprint(t, "seconds since the phase began\nNODES\tPHASE\tWHAT\tN\tMIN\tP50\tP99\tMAX\n")
	for _, result := range r.Results {
		for _, phase := range result.Phases {
			for _, what := range slices.Sorted(maps.Keys(phase.Latencies)) {
				q := phase.Latencies[what]
				fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\n", result.Nodes, phase.Name, what, q.N, q.Min, q.P50, q.P99, q.Max)
			}
		}
	}
	r.rejected(t)
	largest := r.Results[len(r.Results)-1].Nodes
	fmt.Fprintf(t, "\nload of a phase: fixed + per node, fitted over all runs; with %d nodes measured, with %d by the fit\nPHASE\tWHAT\tUNIT\tFIXED\tPER 1000\tAT %d\tAT %d\n", largest, r.Target, largest, r.Target)
	for _, c := range r.Costs {
		at := fmt.Sprintf("%.1f", c.AtTarget)
		if c.Measured {
			at = "measured"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.3f\t%.1f\t%s\n", c.Phase, c.What, c.Unit, c.Fixed, c.PerNode*1000, c.Largest, at)
	}
	return t.Flush()
}

// rejected writes how often the API server said that it had too much to do.
func (r *Report) rejected(w io.Writer) {
	title := "\nNODES\tPHASE\tANSWERED 429\n"
	for _, result := range r.Results {
		for _, phase := range result.Phases {
			if phase.Load.Rejected > 0 {
				fmt.Fprintf(w, "%s%d\t%s\t%.0f\n", title, result.Nodes, phase.Name, phase.Load.Rejected)
				title = ""
			}
		}
	}
}
