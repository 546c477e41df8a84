// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/integration/stand"
	"metsuke.dev/metsuke/shim/status"
)

// timing is the record of how long a container's start took.
func (p *pod) timing(container string) *record.Record {
	p.h.t.Helper()
	events := p.events(container)
	timings := find(events, func(e stand.Event) bool { return e.Kind == "timing" })
	if len(timings) != 1 {
		p.h.t.Fatalf("%d records of kind timing", len(timings))
	}
	// The receipt is there first, and nothing but the totals comes after the exit, however short a life is.
	if last := stand.Last(events); events[0].Kind != "start" || last.Kind != "exit" && slices.ContainsFunc(events, func(e stand.Event) bool { return e.Kind == "exit" && e.Exec == "" }) {
		p.h.t.Errorf("first and last record:\n%s\n%s", events[0].Raw, last.Raw)
	}
	r, err := record.Parse([]byte(timings[0].Raw))
	if err != nil {
		p.h.t.Fatal(err)
	}
	return r
}

// How long each phase of a start took is in the stream, and the node's agent tells of each start once: of a container that runs, and of
// one that came and went unseen.
func TestStartIsTimed(t *testing.T) {
	eachVersion(t, func(t *testing.T, h *harness) {
		m := h.asAgent(baseline)
		told := map[string][]*record.Record{}
		m.TellStarts(func(_ string, r *record.Record) { told[r.Identity.Container] = append(told[r.Identity.Container], r) })
		look := func() {
			t.Helper()
			if err := m.Poll(h.ctx); err != nil {
				t.Fatal(err)
			}
		}
		look()
		p := h.pod(stand.PodConfig{Handler: baseline})
		p.idle()
		look()
		p.run(stand.ContainerConfig{Name: "short", Command: []string{"true"}}).output()
		want := map[string][]*record.Record{}
		for _, name := range []string{"main", "short"} {
			r := p.timing(name)
			want[name] = []*record.Record{r}
			got := r.Event.Timing
			var phases []string
			var end time.Duration
			for _, l := range got.Laps {
				phases = append(phases, l.Phase)
				if l.Offset < end || l.Duration < 0 {
					t.Errorf("%s: %s begins at %v and takes %v, and the one before ended at %v", name, l.Phase, l.Offset, l.Duration, end)
				}
				end = l.Offset + l.Duration
			}
			twice := []string{status.PhaseResolve, status.PhaseRewrite, status.PhaseDelegate, status.PhaseDelegate, status.PhaseArmed}
			if diff := cmp.Diff(twice, phases); diff != "" || got.Laps[0].Offset != 0 || end == 0 {
				t.Errorf("%s: laps %+v\n%s", name, got.Laps, diff)
			}
			receipt, err := record.Parse([]byte(p.events(name)[0].Raw))
			if err != nil {
				t.Fatal(err)
			}
			if r := receipt.Event.Receipt; got.SandboxID != p.ID || got.Image != r.Image || got.Delegate != r.Delegate || got.Placement != r.Placement || got.Traceparent != "" {
				t.Errorf("%s: %+v, receipt %+v", name, got, r)
			}
		}
		p.remove()
		look()
		look()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("(-in the streams +told)\n%s", diff)
		}
	})
}
