// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"

	"metsuke.dev/metsuke/node/doctor/report"
)

// Health is what becomes of a handler's pods on the node.
type Health struct {
	Handler string
	Ready   bool   // nothing failed: they start, and are held
	Reason  string // the first thing that failed, and its fix; empty if nothing did
}

// Examine looks at each of Metsuke's handlers that is in force, in the order of their names, with all checks and its canary. There are none
// where containerd does not answer. The error is about the place's root alone. It blocks as [Run] does.
func Examine(ctx context.Context, p Place) ([]Health, error) {
	n, err := Open(ctx, p)
	if err != nil {
		return nil, err
	}
	return examine(ctx, n), n.Close()
}

func examine(ctx context.Context, n *Node) (all []Health) {
	for _, name := range n.Handlers(ctx) {
		r, err := Run(ctx, n, Options{Handlers: []string{name}})
		if err != nil {
			all = append(all, Health{Handler: name, Reason: err.Error()}) // of options, which are ours
			continue
		}
		all = append(all, Health{Handler: name, Ready: r.Healthy(), Reason: r.firstFailure()})
	}
	return all
}

func (r *Report) firstFailure() string {
	for _, f := range r.Findings {
		if f.Severity == Fail {
			return report.Heading(f.Check, f.Subject) + ": " + f.Found + "; " + f.Fix
		}
	}
	return ""
}
