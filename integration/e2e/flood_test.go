// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"testing"

	"metsuke.dev/metsuke/integration/stand"
)

// Equal denials in a flood are counted, and none is lost. The first process takes its supervisor with it where that is inside: what was
// counted by then and had no record yet is in a record of the loss. The node is told the count soon after: before two calls of a second
// later have returned, which the supervisor answers in their turn, however slow it is.
func TestFloodIsFolded(t *testing.T) {
	const calls = 20000
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: tuned})
		p.shell(fmt.Sprintf("workload flood getppid %d; sleep 1; echo > /tmp/a; echo > /tmp/b", calls)).output()
		h.eventually("all denials", func() error {
			flood := find(p.events("main"), func(e stand.Event) bool {
				return e.Syscall == "getppid" && e.Comm != "sh" || e.Kind == "loss" // the shell asks for its parent too
			})
			if len(flood) == 0 {
				return errors.New("there is none")
			}
			total := 0
			for _, e := range flood {
				total += callsOf(e)
			}
			// The first are recorded one by one, and then two records a second are written.
			took := flood[len(flood)-1].Time.Sub(flood[0].Time)
			if most := 20 + 2*int(took.Seconds()); total != calls || len(flood) > most {
				return fmt.Errorf("%d denials in %d records of %v, want %d in at most %d", total, len(flood), took, calls, most)
			}
			return nil
		})
	})
}
