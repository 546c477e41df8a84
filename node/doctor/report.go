// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"io"

	"metsuke.dev/metsuke/node/doctor/report"
)

// Report is what was found, in the order of the checks.
type Report struct {
	Version  string    `json:"version"` // of the Metsuke that looked
	Repairs  []Repair  `json:"repairs,omitempty"`
	Findings []Finding `json:"findings"`
}

// Plain is the report for those who mend nothing.
func (r *Report) Plain() *report.Report {
	out := &report.Report{Version: r.Version, Repairs: r.Repairs, Findings: []report.Finding{}}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, f.Finding)
	}
	return out
}

// Count returns how many findings are of a severity.
func (r *Report) Count(s Severity) int { return r.Plain().Count(s) }

// Healthy says that nothing failed, as every repair did not either.
func (r *Report) Healthy() bool { return r.Plain().Healthy() }

// Write writes the report for people: what was mended, one line a finding, then what is wrong in full, with its fix.
func (r *Report) Write(w io.Writer) error { return r.Plain().Write(w) }
