// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/integration/stand"
)

// With delivery: buffered calls go on while their records are on the way. They come all the same, each once and in order, also when
// there are more of them than may be on the way at once, and when the container ends upon the last.
func TestBufferedBurst(t *testing.T) {
	const files, opens = 200, 1500
	many := "/tmp/" + strings.Repeat("./", 1700) + "many" // so long that there are 5 MiB of records; 4 MiB are the credit
	burst := fmt.Sprintf("for i in $(seq %d); do echo x > /tmp/$i; done; workload open %s %d rw; echo x > /tmp/last; ", files, many, opens)
	eachVersion(t, func(t *testing.T, h *harness) {
		p := h.pod(stand.PodConfig{Handler: attacked, Annotations: map[string]string{"metsuke.dev/profile": "buffered"}})
		p.run(stand.ContainerConfig{Name: "ends", Command: []string{"sh", "-c", burst}}).output()
		stays := p.run(stand.ContainerConfig{Name: "stays", Command: []string{"sh", "-c", burst + "echo written; sleep 1000"}})
		stays.saw("written\n")
		h.eventually("the last record of a container that stays", func() error {
			if events := p.events("stays"); len(find(events, wrote("/tmp/last"))) == 0 {
				return fmt.Errorf("of %d records the last is %s", len(events), events[len(events)-1].Raw)
			}
			return nil
		})
		task, closeClient := stays.task()
		defer closeClient()
		if err := task.Kill(h.ctx, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		stays.exited()
		for _, name := range []string{"ends", "stays"} {
			h.eventually("exit record", func() error {
				events := p.events(name)
				if last := stand.Last(events); last.Kind != "exit" {
					return fmt.Errorf("the last record is %s", last.Raw)
				}
				return nil
			})
			events := find(p.events(name), func(e stand.Event) bool { return e.Kind == "loss" || e.Class == "file-write" })
			for i := range files {
				if i >= len(events) || !wrote(fmt.Sprint("/tmp/", i+1))(events[i]) {
					t.Fatalf("%s: record %d of %d is not that of /tmp/%d", name, i, len(events), i+1)
				}
			}
			n := len(find(events, wrote(many)))
			if n != opens || len(events) != files+opens+1 || !wrote("/tmp/last")(events[len(events)-1]) {
				t.Errorf("%s: %d records of %d opens, %d in all, and the last is %s", name, n, opens, len(events), events[len(events)-1].Raw)
			}
		}
	})
}
